//! What processes have used, from /proc.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// A process to measure.
pub struct Process(String);

impl Process {
    pub fn new(pid: u32) -> Self {
        Self(format!("/proc/{pid}"))
    }

    pub fn own() -> Self {
        Self("/proc/self".to_owned())
    }

    fn read(&self, file: &str) -> Result<String, String> {
        let path = format!("{}/{file}", self.0);
        std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    }

    /// Seconds of CPU: all, and those in the kernel.
    fn cpu(&self) -> Result<(f64, f64), String> {
        let stat = self.read("stat")?;
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let field =
            |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default() / hertz;
        // utime and stime are the 14th and the 15th, the first two are cut off.
        Ok((field(11) + field(12), field(12)))
    }

    fn figure(&self, file: &str, name: &str) -> Result<f64, String> {
        let text = self.read(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let figure = line.trim_start_matches(':').split_whitespace().next().and_then(|text| text.parse().ok());
        figure.ok_or_else(|| format!("{}/{file} has no {name}", self.0))
    }
}

/// What the control plane and the simulator have used at one moment, or between two.
pub struct Reading {
    at: Instant,
    /// Between the two moments.
    pub wall: Duration,
    /// Seconds of CPU of the control plane.
    pub cpu: f64,
    /// Of which in the kernel.
    pub kernel: f64,
    /// Seconds of CPU of the simulator.
    pub own_cpu: f64,
    /// Of which in the kernel.
    pub own_kernel: f64,
    /// Bytes that the control plane has sent to the disk.
    pub written: f64,
    /// Its resident memory in MiB.
    pub resident: f64,
    /// The most it ever had.
    pub peak: f64,
}

impl Reading {
    pub fn of(server: &Process, own: &Process) -> Result<Self, String> {
        let ((cpu, kernel), (own_cpu, own_kernel)) = (server.cpu()?, own.cpu()?);
        Ok(Self {
            at: Instant::now(),
            wall: Duration::ZERO,
            cpu,
            kernel,
            own_cpu,
            own_kernel,
            written: server.figure("io", "write_bytes")?,
            resident: server.figure("status", "VmRSS")? / 1024.0,
            peak: server.figure("status", "VmHWM")? / 1024.0,
        })
    }

    /// What was used since then; memory is as it is now.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            at: self.at,
            wall: self.at.duration_since(before.at),
            cpu: self.cpu - before.cpu,
            kernel: self.kernel - before.kernel,
            own_cpu: self.own_cpu - before.own_cpu,
            own_kernel: self.own_kernel - before.own_kernel,
            written: self.written - before.written,
            resident: self.resident,
            peak: self.peak,
        }
    }
}

/// Each agent has two connections.
pub fn raise_file_limit(agents: usize) -> Result<(), String> {
    let needed = agents as u64 * 2 + 256;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
        .map_err(|error| format!("{agents} agents need {needed} file descriptors: {error}"))
}
