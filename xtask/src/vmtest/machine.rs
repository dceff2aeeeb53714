//! One machine: a qemu process without a network, whose second serial line carries the reports of `tests/vm/guest.py`.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use super::image::{Image, directory};

/// Memory in MiB: the platform, its demo's tasks, and what nobody has synced.
const MEMORY: &str = "3072";
/// Nothing a scenario does is silent for so long.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// How long a processor that is not emulated may take from the first instruction to the kernel's first complaint.
const PROBE: Duration = Duration::from_secs(30);

/// What executes the machines' instructions.
#[derive(Clone, Copy)]
pub enum Accelerator {
    /// This machine's processor.
    Kvm,
    /// An emulated one, which is ten times slower.
    Emulation,
}

impl Accelerator {
    /// KVM, if it can run this kernel. Inside a virtual machine it may be there and unable to: so the kernel is started
    /// without a root file system, which it finds out and gives up at once.
    pub fn find(kernel: &Path) -> Self {
        if !Path::new("/dev/kvm").exists() {
            return Self::Emulation;
        }
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"])
            .args(["-smp", "2", "-m", "256", "-cpu", "max", "-accel", Self::Kvm.name(), "-append", "panic=-1"])
            .arg("-kernel")
            .arg(kernel)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut qemu) = qemu else { return Self::Emulation };
        let end = Instant::now() + PROBE;
        let works = loop {
            match qemu.try_wait() {
                Ok(Some(status)) => break status.success(),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(50)),
                _ => break false,
            }
        };
        // It may have ended by itself; then only its exit status is left to be taken.
        let _ = qemu.kill();
        let _ = qemu.wait();
        if works { Self::Kvm } else { Self::Emulation }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "with KVM",
            Self::Emulation => "with an emulated processor",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulation => "tcg,thread=multi",
        }
    }
}

/// A machine that runs; dropping it cuts its power.
pub struct Machine {
    qemu: Child,
    reports: Receiver<String>,
    started: Instant,
    end: Instant,
}

impl Machine {
    /// Switches a machine on; all it does must be done by `end`.
    pub fn start(image: &Image, accelerator: Accelerator, scenario: &str, end: Instant) -> Result<Self, String> {
        let console = directory().join(format!("console-{scenario}.log"));
        // The machines of one scenario follow each other in its file.
        File::options().create(true).append(true).open(&console).map_err(|error| format!("{console:?}: {error}"))?;
        let drive = format!("file={},if=none,id=disk,format=raw,cache=writeback", image.disk.display());
        let append = format!(
            "root=/dev/nvme0n1 rw init=/vm/tests/vm/init console=ttyS0 loglevel=4 panic=-1 no_timer_check vmtest={scenario}"
        );
        let mut qemu = Command::new("nice")
            .args(["-n", "15", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args([
                "-display",
                "none",
                "-nic",
                "none",
                "-smp",
                "2",
                "-m",
                MEMORY,
                "-cpu",
                "max",
                "-accel",
                accelerator.name(),
            ])
            .args(["-chardev", &format!("file,id=console,append=on,path={}", console.display())])
            .args(["-serial", "chardev:console", "-serial", "stdio"])
            .args(["-drive", &drive, "-device", "nvme,drive=disk,serial=vmtest"])
            .arg("-kernel")
            .arg(&image.kernel)
            .args(["-append", &append])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("qemu-system-x86_64 could not be started: {error}"))?;
        let output = qemu.stdout.take().ok_or("qemu has no standard output")?;
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more once the machine is gone.
                let _ = sender.send(line.trim().to_owned());
            }
        });
        Ok(Self { qemu, reports, started: Instant::now(), end })
    }

    /// The next report; `None` when the machine has switched itself off.
    pub fn next(&mut self) -> Result<Option<String>, String> {
        let patience = SILENCE.min(self.end.saturating_duration_since(Instant::now()));
        match self.reports.recv_timeout(patience) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.qemu.wait().map_err(|error| error.to_string())?;
                if status.success() { Ok(None) } else { Err(format!("qemu ended with {status}")) }
            }
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "the machine said nothing for {} s: its console is in {}",
                patience.as_secs(),
                directory().display()
            )),
        }
    }

    /// Tells what happens in it.
    pub fn say(&self, what: &str) {
        eprintln!("   {:>5.0} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Ends it at once: what the machine had in memory is gone, what it had synced is on its disk.
    pub fn cut_power(mut self) {
        self.end_qemu();
    }

    fn end_qemu(&mut self) {
        // It may have ended by itself; then only its exit status is left to be taken.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end_qemu();
    }
}

/// Removes the consoles of earlier runs.
pub fn forget_consoles() {
    for entry in fs::read_dir(directory()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("console-") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
