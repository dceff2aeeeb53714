//! `cargo xtask vmtest`: the platform on a pure cgroup v2 host, and through real power cuts.
//!
//! A Debian cloud kernel runs in qemu (emulated where there is no KVM, so this takes a quarter of an hour and is no part
//! of `ci`). The kernel, the disk and each machine's console are in `target/vm`; nothing is installed but qemu. What
//! happens inside is in `tests/vm`. This side starts the machines, cuts their power, and compares what each reads back
//! with what the ones before it have acknowledged.

mod image;
mod machine;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use image::Image;
use machine::{Accelerator, Machine};

use crate::{ci::release_binary, setup, shell::run};

/// All of it. A machine that hangs is ended then.
const BUDGET: Duration = Duration::from_secs(90 * 60);

/// When the power is cut, for each machine in turn.
const CUTS: &[Cut] = &[
    // A platform that has only just been made.
    Cut { after: "read", count: 1 },
    Cut { after: "acked", count: 37 },
    // The tasks that went with the power are just being replaced.
    Cut { after: "read", count: 1 },
    Cut { after: "acked", count: 8 },
];

/// The power goes at the `count`-th report of this kind, at once.
struct Cut {
    after: &'static str,
    count: usize,
}

/// What the machines have said so far.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeSet<String>,
    found: BTreeSet<String>,
    failures: Vec<String>,
}

/// Builds everything and runs all scenarios.
pub fn run_vmtest(arguments: &[String]) -> Result<(), String> {
    if let Some(unknown) = arguments.first() {
        return Err(format!("`{unknown}`: it takes no arguments"));
    }
    setup::run_setup(&["--vm".to_owned()])?;
    run("cargo", &["build", "--release", "--locked"])?;
    let image = Image::build(&release_binary(), &image::runtime_tests()?)?;
    let accelerator = Accelerator::find(&image.kernel);
    let end = Instant::now() + BUDGET;
    let mut ledger = Ledger::default();

    eprintln!("\n── {} with cgroup v2 only, {}", image.version, accelerator.describe());
    let mut machine = Machine::start(&image, accelerator, "checks", end)?;
    ledger.follow(&mut machine, None)?;
    ledger.verdict()?;

    for (number, cut) in CUTS.iter().enumerate() {
        eprintln!("\n── machine {}: power cut at {} × `{}`", number + 1, cut.count, cut.after);
        let mut machine = Machine::start(&image, accelerator, "writes", end)?;
        ledger.follow(&mut machine, Some(cut))?;
        machine.cut_power();
        ledger.verdict()?;
    }
    eprintln!("\n── the last machine");
    let mut machine = Machine::start(&image, accelerator, "last", end)?;
    ledger.follow(&mut machine, None)?;
    ledger.verdict()?;
    println!(
        "{}: the platform works with cgroup v2 only; {} acknowledged writes survived {} power cuts",
        image.version,
        ledger.acknowledged.len(),
        CUTS.len()
    );
    Ok(())
}

impl Ledger {
    /// Listens to a machine until it ends by itself, or until its power is to be cut.
    fn follow(&mut self, machine: &mut Machine, cut: Option<&Cut>) -> Result<(), String> {
        self.found.clear();
        let mut counted = 0;
        while let Some(report) = machine.next()? {
            let (word, rest) = report.split_once(' ').unwrap_or((&report, ""));
            match word {
                "acked" => drop(self.acknowledged.insert(rest.to_owned())),
                "found" => drop(self.found.insert(rest.to_owned())),
                "read" => self.compare(),
                "fail" => self.failures.push(rest.to_owned()),
                "ended" if rest != "0" => self.failures.push(format!("the scenario ended with {rest}")),
                _ => {}
            }
            if !matches!(word, "acked" | "found") {
                machine.say(&report);
            }
            counted += usize::from(cut.is_some_and(|cut| cut.after == word));
            if cut.is_some_and(|cut| cut.count == counted) {
                machine.say("the power goes");
                return Ok(());
            }
        }
        match cut {
            Some(cut) => Err(format!("the machine ended before its power was cut ({counted} × `{}`)", cut.after)),
            None => Ok(()),
        }
    }

    /// What was acknowledged must be there. What was not synced must not: else the cut was no power cut.
    fn compare(&mut self) {
        let lost: Vec<&str> = self.acknowledged.difference(&self.found).map(String::as_str).collect();
        eprintln!("   {} acknowledged, {} found, {} lost", self.acknowledged.len(), self.found.len(), lost.len());
        if !lost.is_empty() {
            self.failures.push(format!("acknowledged, but lost with the power: {}", lost.join(", ")));
        }
        if self.found.contains("unsynced file") {
            self.failures.push("a file that nobody had synced survived: the cut proves nothing".to_owned());
        }
    }

    fn verdict(&self) -> Result<(), String> {
        if self.failures.is_empty() {
            return Ok(());
        }
        Err(format!("\n  {}\n  (consoles: {})", self.failures.join("\n  "), image::directory().display()))
    }
}
