//! Which device nodes a group's processes may open and make. cgroup v1 has files for it; in v2 it is a BPF program on the group.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{CgroupError, Hierarchy, write};

/// Which nodes a [`DeviceRule`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// Devices that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Which kind.
    pub kind: DeviceKind,
    /// The major number; `None` is any.
    pub major: Option<u32>,
    /// The minor number; `None` is any.
    pub minor: Option<u32>,
    /// Whether they may be opened for reading and for writing.
    pub open: bool,
    /// Whether nodes may be made of them.
    pub make: bool,
}

impl fmt::Display for DeviceRule {
    /// As the v1 controller's files have it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        let (open, make) = (if self.open { "rw" } else { "" }, if self.make { "m" } else { "" });
        write!(formatter, "{kind} {major}:{minor} {open}{make}")
    }
}

/// Lets the group use what is `allowed` and nothing else.
pub(super) fn restrict(hierarchy: &Hierarchy, path: &str, allowed: &[DeviceRule]) -> Result<(), CgroupError> {
    let directory = hierarchy.directory("devices", path);
    if hierarchy.unified() {
        return attach(&directory, &program(allowed)).map_err(CgroupError::at(&directory));
    }
    if !hierarchy.directory("devices", "").join("devices.list").exists() {
        return Err(CgroupError::Unsupported("devices"));
    }
    fs::create_dir_all(&directory).map_err(CgroupError::at(&directory))?;
    write(&directory.join("devices.deny"), "a")?;
    for rule in allowed {
        write(&directory.join("devices.allow"), rule)?;
    }
    Ok(())
}

/// One instruction, `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const MAKE: u32 = 1;
const OPEN: u32 = 2 | 4;

/// The rules as a program. Its context, `struct bpf_cgroup_dev_ctx`, is three words: kind in the lower half of the first and access in
/// the upper, major number, minor number. It answers 1 to allow.
fn program(allowed: &[DeviceRule]) -> Vec<Instruction> {
    let insn = |code, destination: u8, source: u8, offset, immediate| Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    };
    let mut program = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(MOVE_REGISTER, 3, 2, 0, 0),
        insn(AND, 2, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in allowed {
        let kind = match rule.kind {
            DeviceKind::Block => 1,
            DeviceKind::Character => 2,
        };
        let access = if rule.open { OPEN } else { 0 } | if rule.make { MAKE } else { 0 };
        // Whatever is asked for beyond what the rule gives remains set.
        let mut tests = vec![
            insn(MOVE_REGISTER, 6, 3, 0, 0),
            insn(AND, 6, 0, 0, (!access & 0xffff).cast_signed()),
            insn(JUMP_UNLESS_EQUAL, 6, 0, 0, 0),
            insn(JUMP_UNLESS_EQUAL, 2, 0, 0, kind),
        ];
        tests.extend(rule.major.map(|major| insn(JUMP_UNLESS_EQUAL, 4, 0, 0, major.cast_signed())));
        tests.extend(rule.minor.map(|minor| insn(JUMP_UNLESS_EQUAL, 5, 0, 0, minor.cast_signed())));
        tests.extend([insn(MOVE, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
        let length = tests.len();
        for (index, test) in tests.iter_mut().enumerate().filter(|(_, test)| test.code == JUMP_UNLESS_EQUAL) {
            // To the next rule: a rule is at most eight instructions long.
            test.offset = i16::try_from(length - index - 1).unwrap_or(0);
        }
        program.extend(tests);
    }
    program.extend([insn(MOVE, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    program
}

/// The part of `union bpf_attr` that loading needs; the kernel takes what is missing for zero.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part that attaching needs.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Loads the program and attaches it to the group of this directory, with which it goes.
fn attach(directory: &Path, program: &[Instruction]) -> io::Result<()> {
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let descriptor = bpf(BPF_PROG_LOAD, &load)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else holds it.
    let loaded = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let group = fs::File::open(directory)?;
    let attach = Attach {
        target: group.as_raw_fd().unsigned_abs(),
        program: loaded.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the structure is laid out as the beginning of the kernel's union and is of the size we say; what it points to lives
    // through the call, in which the kernel only reads it.
    let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome as libc::c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: DeviceRule =
        DeviceRule { kind: DeviceKind::Character, major: Some(1), minor: Some(3), open: true, make: true };
    const NODES: DeviceRule = DeviceRule { kind: DeviceKind::Block, major: None, minor: None, open: false, make: true };

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        assert_eq!(NULL.to_string(), "c 1:3 rwm");
        assert_eq!(NODES.to_string(), "b *:* m");
    }

    /// The unified tree is there on a hybrid host too, without controllers: devices need none.
    #[test]
    fn a_program_decides_which_devices_are_opened() {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .map(Path::new)
            .find(|root| root.join("cgroup.subtree_control").exists());
        let Some(root) = root.filter(|_| nix::unistd::geteuid().is_root()) else {
            eprintln!("skipped: it needs root and the unified tree");
            return;
        };
        let directory = root.join(format!("longshore-test-devices-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let attached = attach(&directory, &program(&[NODES, NULL]));
        let script = format!(
            "echo $$ > {}/cgroup.procs; echo > /dev/null && ! cat /dev/zero | head -c1 | grep -q . && echo no zero; \
             d=$(mktemp -d); mknod $d/b b 7 0 && ! dd if=$d/b count=1 2>&1 && echo no block; \
             ! mknod $d/c c 1 5 && echo no node; rm -r $d",
            directory.display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        fs::remove_dir(&directory).unwrap();
        attached.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        for line in ["no zero", "no block", "no node", "Operation not permitted"] {
            assert!(said.contains(line), "{line:?} in {output:?}");
        }
    }
}
