//! Writer and reader against each other: order, restarts, bounds, gaps.

use super::*;
use crate::container::{LogLimits, WhenFull};
use crate::logs::spool::{Room, Spool};

fn limits(bytes: u64, when_full: WhenFull) -> LogLimits {
    LogLimits { limit_bytes: bytes, when_full }
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
}

fn disk(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != CURSOR)
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

#[tokio::test]
async fn lines_are_put_together_from_chunks_of_two_streams() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(directory.path(), &limits(1 << 20, WhenFull::Block)).unwrap();
    spool.append(Stream::Stdout, b"one\ntw", 1_000);
    spool.append(Stream::Stderr, b"err", 2_000);
    spool.append(Stream::Stdout, b"o\n\nlast", 3_000);
    spool.append(Stream::Stderr, b"or\n", 4_000);
    spool.finish();
    let mut reader = LogReader::open(directory.path(), None);
    let lines = reader.next(100).await.unwrap().unwrap();
    assert_eq!(texts(&lines), ["one", "two", "", "error", "last"]);
    assert_eq!(lines[1].time, files::from_nanoseconds(1_000));
    assert_eq!((lines[3].stream, lines[3].time), (Stream::Stderr, files::from_nanoseconds(2_000)));
    assert_eq!(reader.next(100).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(directory.path(), &limits(1 << 20, WhenFull::Block)).unwrap();
    spool.append(Stream::Stdout, b"a\nb\nhalf", 1);
    let mut reader = LogReader::open(directory.path(), None);
    assert_eq!(texts(&reader.next(9).await.unwrap().unwrap()), ["a", "b"]);
    reader.acknowledge().unwrap();
    spool.append(Stream::Stdout, b" whole\nc\n", 2);
    assert_eq!(texts(&reader.next(9).await.unwrap().unwrap()), ["half whole", "c"]);
    drop(reader);
    let mut again = LogReader::open(directory.path(), None);
    assert_eq!(texts(&again.next(9).await.unwrap().unwrap()), ["half whole", "c"]);
    again.acknowledge().unwrap();
    drop(again);
    spool.finish();
    assert_eq!(LogReader::open(directory.path(), None).next(9).await.unwrap(), None);
}

#[tokio::test]
async fn a_blocking_spool_is_bounded_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let bound = 256 << 10;
    let mut spool = Spool::create(directory.path(), &limits(bound, WhenFull::Block)).unwrap();
    let mut reader = LogReader::open(directory.path(), None);
    let (mut written, mut read, mut waited) = (0u32, 0u32, 0);
    while read < 20_000 {
        while written < 20_000 && spool.room() == Room::Yes {
            spool.append(Stream::Stdout, format!("line {written} {}\n", "x".repeat(100)).as_bytes(), 1);
            written += 1;
        }
        waited += u32::from(spool.is_full());
        assert!(disk(directory.path()) <= bound);
        for line in reader.next(1_000).await.unwrap().unwrap() {
            assert!(texts(&[line])[0].starts_with(&format!("line {read} ")));
            read += 1;
        }
        reader.acknowledge().unwrap();
    }
    assert!(waited > 2, "the bound was never reached");
    assert_eq!(reader.dropped_bytes(), 0);
}

#[tokio::test]
async fn a_blocking_spool_with_room_takes_a_chunk_of_each_stream() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(directory.path(), &limits(256 << 10, WhenFull::Block)).unwrap();
    let mut reader = LogReader::open(directory.path(), None);
    let chunk = [vec![b'x'; (64 << 10) - 1], vec![b'\n']].concat();
    for odd in 0..200 {
        while spool.room() == Room::No {
            reader.next(1).await.unwrap();
            reader.acknowledge().unwrap();
        }
        // Of any size, so that every remainder of the space is met.
        spool.append(Stream::Stdout, &chunk[odd * 7..], 1);
        spool.append(Stream::Stderr, &chunk, 1);
    }
    spool.finish();
    while reader.next(usize::MAX).await.unwrap().is_some() {}
    assert_eq!(reader.dropped_bytes(), 0);
}

#[tokio::test]
async fn a_dropping_spool_drops_whole_lines_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(directory.path(), &limits(256 << 10, WhenFull::Drop)).unwrap();
    let line = |number: u32| format!("line {number} {}\n", "x".repeat(1000));
    let mut total = 0;
    for number in 0..2_000 {
        assert_eq!(spool.room(), Room::Yes);
        // Chunks end in the middle of lines.
        let text = line(number);
        let (head, tail) = text.split_at(500);
        spool.append(Stream::Stdout, head.as_bytes(), 1);
        spool.append(Stream::Stdout, tail.as_bytes(), 1);
        total += text.len() as u64;
    }
    assert!(disk(directory.path()) <= 256 << 10);
    let mut reader = LogReader::open(directory.path(), None);
    let first = reader.next(usize::MAX).await.unwrap().unwrap();
    reader.acknowledge().unwrap();
    spool.append(Stream::Stdout, b"rest of a dropped line\nfresh\n", 1);
    spool.finish();
    let second = reader.next(usize::MAX).await.unwrap().unwrap();
    assert_eq!(texts(&second), ["fresh"]);
    let kept: u64 = first.iter().map(|line| line.bytes.len() as u64 + 1).sum();
    for (number, kept) in texts(&first).iter().enumerate() {
        assert_eq!(*kept, line(u32::try_from(number).unwrap()).trim_end(), "a torn line");
    }
    let missing = total - kept;
    assert!(
        reader.dropped_bytes() > 0 && reader.dropped_bytes().abs_diff(missing) <= 1100,
        "{} of {missing}",
        reader.dropped_bytes()
    );
}

#[tokio::test]
async fn a_line_without_end_is_cut_into_parts() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(directory.path(), &limits(4 << 20, WhenFull::Block)).unwrap();
    spool.append(Stream::Stdout, &vec![b'a'; 600 << 10], 1);
    spool.append(Stream::Stdout, b"end\n", 1);
    spool.finish();
    let mut reader = LogReader::open(directory.path(), None);
    let lines = reader.next(usize::MAX).await.unwrap().unwrap();
    assert_eq!(lines.iter().map(|line| line.partial).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(lines.iter().map(|line| line.bytes.len()).sum::<usize>(), (600 << 10) + 3);
}

#[tokio::test]
async fn a_damaged_segment_is_an_error_not_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(record::name(0)), [9u8; 64]).unwrap();
    assert!(LogReader::open(directory.path(), None).next(1).await.is_err());
}
