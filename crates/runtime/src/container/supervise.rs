//! The shim's loop: one `poll` over the container's output, its end, and those who ask.
//!
//! Nothing here blocks except `poll`, and nothing is buffered but one chunk of output, so the memory stays flat however much a container
//! prints: what does not fit into the spool stays in the pipe (the writer waits) or is counted and dropped.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read};

use super::error::Failure;
use super::exec;
use super::protocol::{self, Answer, Ended, Request};
use super::shim::{self, Built};
use crate::files;
use crate::logs::Stream;
use crate::logs::spool::Room;

/// How often a full spool is looked at again.
const SPOOL_RETRY: Duration = Duration::from_millis(10);
/// How long output may still come after everything in the container was killed. A process outside could hold a pipe open.
const DRAIN: Duration = Duration::from_secs(5);
/// More clients than this at once are nobody's of ours.
const MAXIMUM_CLIENTS: usize = 256;

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    waits: Waits,
}

#[derive(PartialEq)]
enum Waits {
    /// For its request to be complete.
    Request,
    /// For the program to be executed.
    Start,
    /// For the container's end.
    End,
}

struct Supervisor {
    built: Built,
    clients: Vec<Client>,
    outputs: Vec<(Stream, OwnedFd)>,
    starting: bool,
    ended: Option<Ended>,
    ended_at: Option<Instant>,
    buffer: Vec<u8>,
}

/// Serves until the container has ended and its output was taken.
pub(crate) fn run(built: Built) {
    let outputs = [(Stream::Stdout, built.stdout.try_clone()), (Stream::Stderr, built.stderr.try_clone())];
    let outputs = outputs.into_iter().filter_map(|(stream, fd)| Some((stream, fd.ok()?))).collect();
    let mut supervisor = Supervisor {
        built,
        clients: Vec::new(),
        outputs,
        starting: false,
        ended: None,
        ended_at: None,
        buffer: vec![0; 1 << 16],
    };
    while !supervisor.finished() {
        supervisor.turn();
    }
    supervisor.built.spool.finish();
    // The end of this process tells the rest: the socket closes, the files stay.
    let _ = std::fs::remove_file(protocol::SOCKET);
}

impl Supervisor {
    fn finished(&self) -> bool {
        self.ended.is_some()
            && (self.outputs.is_empty()
                || self.ended_at.is_some_and(|at| at.elapsed() > DRAIN && !self.built.spool.is_full()))
    }

    fn turn(&mut self) {
        let reading = self.built.spool.room() == Room::Yes;
        let events = PollFlags::POLLIN;
        let mut sources: Vec<PollFd<'_>> =
            vec![PollFd::new(self.built.listener.as_fd(), events), PollFd::new(self.built.signals.as_fd(), events)];
        // Once the program runs, the pipe is hung up for good and would wake us for ever.
        sources.push(if self.starting {
            PollFd::new(self.built.report.as_fd(), events)
        } else {
            PollFd::new(self.built.signals.as_fd(), PollFlags::empty())
        });
        sources.extend(self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), events)));
        if reading {
            sources.extend(self.outputs.iter().map(|(_, fd)| PollFd::new(fd.as_fd(), events)));
        }
        // Without a reason to look again, the kernel wakes us.
        let timeout = if !reading {
            timeout(SPOOL_RETRY)
        } else if self.ended.is_some() {
            timeout(Duration::from_millis(500))
        } else {
            PollTimeout::NONE
        };
        if poll(&mut sources, timeout).is_err() {
            return;
        }
        let ready: Vec<bool> =
            sources.iter().map(|source| source.revents().is_some_and(|events| !events.is_empty())).collect();
        drop(sources);
        let clients = self.clients.len();
        let at = |index: usize| ready.get(index).copied().unwrap_or(false);
        if reading {
            // Before the rest, so that what was printed before the end is there when the end is told.
            let outputs: Vec<bool> = (0..self.outputs.len()).map(|number| at(3 + clients + number)).collect();
            self.copy(&outputs);
        }
        if self.starting && at(2) {
            self.told_of_start();
        }
        if at(1) {
            self.reap();
        }
        let talking: Vec<bool> = (0..clients).map(|number| at(3 + number)).collect();
        self.serve(&talking);
        if at(0) {
            self.accept();
        }
    }

    /// Takes one chunk from each pipe that has some.
    fn copy(&mut self, ready: &[bool]) {
        let mut number = 0;
        let Self { outputs, buffer, built, .. } = self;
        outputs.retain(|(stream, fd)| {
            let wanted = ready.get(number).copied().unwrap_or(false);
            number += 1;
            if !wanted {
                return true;
            }
            match read(fd, buffer) {
                Ok(0) => false,
                Ok(count) => {
                    built.spool.append(*stream, buffer.get(..count).unwrap_or_default(), files::now_nanoseconds());
                    true
                }
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => true,
                Err(_) => false,
            }
        });
    }

    fn accept(&mut self) {
        if let Ok((stream, _)) = self.built.listener.accept()
            && self.clients.len() < MAXIMUM_CLIENTS
            && stream.set_nonblocking(true).is_ok()
        {
            self.clients.push(Client { stream, input: Vec::new(), waits: Waits::Request });
        }
    }

    fn serve(&mut self, ready: &[bool]) {
        let mut keep = Vec::with_capacity(self.clients.len());
        for (number, mut client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            if !ready.get(number).copied().unwrap_or(false) {
                keep.push(client);
                continue;
            }
            let mut chunk = [0; 4096];
            match client.stream.read(&mut chunk) {
                Ok(count)
                    if count > 0 && client.waits == Waits::Request && client.input.len() < protocol::MAXIMUM_LINE =>
                {
                    client.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    if client.input.ends_with(b"\n") {
                        keep.extend(self.answer(client));
                    } else {
                        keep.push(client);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => keep.push(client),
                // Hung up, or talks out of turn.
                _ => {}
            }
        }
        // Those answered while others were looked at are not in the way of a new one: order does not matter.
        keep.append(&mut self.clients);
        self.clients = keep;
    }

    /// Acts on a request; gives the client back if its answer comes later.
    fn answer(&mut self, mut client: Client) -> Option<Client> {
        let request: Request = match serde_json::from_slice(&client.input) {
            Ok(request) => request,
            Err(error) => {
                return send(client, &Answer::Failed(Failure::Invalid("request".to_owned(), error.to_string())));
            }
        };
        match (request, &self.ended) {
            (Request::Wait, Some(ended)) => send(client, &Answer::Ended(ended.clone())),
            (Request::Wait, None) => {
                client.waits = Waits::End;
                Some(client)
            }
            (_, Some(_)) => send(client, &Answer::Failed(Failure::NotRunning)),
            (Request::Start, None) => self.start(client),
            (Request::Signal(signal), None) => {
                // SAFETY: the process is our unreaped child (reaping sets `ended`), so the number is still its own.
                let sent = unsafe { libc::kill(self.built.running.process.pid, signal) };
                let failure = || Failure::Invalid("signal".to_owned(), std::io::Error::last_os_error().to_string());
                let answer = if sent == 0 { Answer::Signalled } else { Answer::Failed(failure()) };
                send(client, &answer)
            }
            (Request::Exec(_), None) if self.built.running.started_at.is_none() => {
                send(client, &Answer::Failed(Failure::NotRunning))
            }
            (Request::Exec(request), None) => {
                if let Err(failure) = exec::fork(&self.built, &client.stream, request) {
                    return send(client, &Answer::Failed(failure));
                }
                None
            }
        }
    }

    fn start(&mut self, mut client: Client) -> Option<Client> {
        if let Some(started_at) = self.built.running.started_at {
            return send(client, &Answer::Started { started_at });
        }
        if !self.starting {
            if let Err(error) = self.built.library.start() {
                return send(client, &Answer::Failed(Failure::Create(shim::chain(&error))));
            }
            self.starting = true;
        }
        client.waits = Waits::Start;
        Some(client)
    }

    /// The pipe closed (executed) or told why not.
    fn told_of_start(&mut self) {
        let Some(told) = read_report(&self.built.report) else { return };
        self.starting = false;
        let answer = match told {
            Some(failure) => Answer::Failed(failure),
            None => {
                let started_at = files::now_nanoseconds();
                self.built.running.started_at = Some(started_at);
                // If this cannot be written the container still runs; a restarted caller would take it for one only created.
                let _ = protocol::write(&self.built.directory, protocol::STATE, &self.built.running);
                Answer::Started { started_at }
            }
        };
        self.tell(&Waits::Start, &answer);
    }

    fn tell(&mut self, what: &Waits, answer: &Answer) {
        let (told, others) = std::mem::take(&mut self.clients).into_iter().partition(|client| client.waits == *what);
        self.clients = others;
        for client in told {
            send(client, answer);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.built.signals.read_signal() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended_with(pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.ended_with(pid, 128 + signal as i32, Some(signal as i32))
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn ended_with(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        if pid.as_raw() != self.built.running.process.pid || self.ended.is_some() {
            return;
        }
        if self.starting {
            self.told_of_start();
        }
        let finished_at = files::now_nanoseconds();
        // Before the group goes, and its counters with it.
        let oom_killed = self.built.group.oom_kills() > 0;
        let ended =
            Ended { code: Some(code), signal, oom_killed, started_at: self.built.running.started_at, finished_at };
        // In a shared process namespace its other processes would live on.
        shim::remove_group(&self.built.group);
        if let Err(error) = protocol::write(&self.built.directory, protocol::EXIT, &ended) {
            tracing::warn!(%error, "exit.json");
        }
        self.tell(&Waits::Start, &Answer::Failed(Failure::NotRunning));
        self.tell(&Waits::End, &Answer::Ended(ended.clone()));
        self.ended = Some(ended);
        self.ended_at = Some(Instant::now());
    }
}

fn timeout(duration: Duration) -> PollTimeout {
    PollTimeout::try_from(duration).unwrap_or(PollTimeout::ZERO)
}

/// Answers and hangs up.
fn send(client: Client, answer: &Answer) -> Option<Client> {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let mut stream = client.stream;
    // A short answer to a local socket fits its buffer; one who does not listen misses it.
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
    let _ = stream.write_all(&line);
    None
}

/// What the pipe of the first process says: `None` nothing yet, `Some(None)` executed, `Some(Some(_))` why not.
pub(crate) fn read_report(report: &impl AsFd) -> Option<Option<Failure>> {
    let mut text = vec![0; 1 << 14];
    let mut filled = 0;
    let ready = |fd: BorrowedFd<'_>| {
        poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout(Duration::from_millis(200))).unwrap_or(0) > 0
    };
    while ready(report.as_fd()) {
        match read(report, text.get_mut(filled..)?) {
            Ok(0) if filled == 0 => return Some(None),
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(nix::Error::EINTR) => {}
            Err(_) => break,
        }
    }
    if filled == 0 {
        return None;
    }
    let told = text.get(..filled).unwrap_or_default();
    Some(Some(
        serde_json::from_slice(told).unwrap_or_else(|_| Failure::Create(String::from_utf8_lossy(told).into_owned())),
    ))
}
