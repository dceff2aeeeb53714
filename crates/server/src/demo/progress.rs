//! Progress: a spinner a step on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells what goes on.
pub struct Progress {
    terminal: bool,
}

/// One step, until it is finished or dropped.
pub struct Step {
    name: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Looks whether somebody watches.
    pub fn start() -> Self {
        Self { terminal: std::io::stdout().is_terminal() }
    }

    /// Begins a step.
    pub fn step(&mut self, name: &'static str) -> Step {
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is a constant: it is right or it is not.
            if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {prefix:<32} {msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(name);
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Step { name, started: Instant::now(), bar }
    }
}

impl Step {
    /// Says how far it is. Only a terminal shows it.
    pub fn message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Ends the step well.
    pub fn finish(self, result: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("  ✓ {:<32} {result}  ({seconds:.2} s)", self.name);
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                println!("{line}");
            }
            None => println!("{line}"),
        }
    }
}
