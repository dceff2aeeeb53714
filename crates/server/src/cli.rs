//! The command line. What each command does is in `commands`, `supervisor` and `demo`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use domain::{AccountId, Region};

use crate::{commands, demo, logging, supervisor};

/// Amazon ECS, ECR and Fargate that you can own.
#[derive(Parser)]
#[command(name = "longshore", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  longshore demo                 see the main job done, start to end
  longshore up                   run the platform on this host until Ctrl-C
  eval \"$(longshore env)\"        point the aws CLI and every SDK at it
  longshore down --purge         remove everything again";

const RECLAIM_EXAMPLE: &str = "Example:\n  longshore spot reclaim i-0123456789abcdef0";

/// What is done with Spot Instances.
#[derive(Subcommand, Clone, Debug)]
pub enum SpotCommand {
    /// Give an instance its notice: it is terminated two minutes later (of the platform's time).
    Reclaim(ReclaimArgs),
}

/// Options of `spot reclaim`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RECLAIM_EXAMPLE)]
pub struct ReclaimArgs {
    /// The Spot Instance, i-….
    pub instance_id: String,
    /// Where the data lives.
    #[command(flatten)]
    pub data: DataDirArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole platform on this host, in the foreground.
    Up(UpArgs),
    /// Do the main job in one command: image, registry, task definition, service, load balancer.
    Demo(DemoArgs),
    /// Print the environment that points AWS tools here.
    Env(DataDirArgs),
    /// Stop everything on this host that belongs to a data directory.
    Down(DownArgs),
    /// Say what this host has and lacks for running the platform.
    Doctor(DataDirArgs),
    /// Interrupt Spot Instances, as Amazon does when it wants its capacity back.
    #[command(subcommand, after_help = RECLAIM_EXAMPLE)]
    Spot(SpotCommand),
    /// The control plane (started by `up`).
    #[command(hide = true)]
    Server,
    /// The machine's hypervisor (started by `up`).
    #[command(hide = true)]
    Host,
    /// What an instance boots (started by its first process).
    #[command(hide = true)]
    GuestBoot,
    /// A container instance: registers with a cluster and runs its tasks.
    Agent(agent::Options),
    /// Write the agent as an image for Docker Engine.
    AgentImage(AgentImageArgs),
    /// One load balancer's data plane (started by `host`).
    #[command(hide = true)]
    Balancer(balancer::Options),
}

/// Where the data lives.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  longshore env --data-dir /var/lib/longshore")]
pub struct DataDirArgs {
    /// The data directory.
    #[arg(long, default_value = "./longshore-data", env = "LONGSHORE_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// Options of `up`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  longshore up --data-dir /var/lib/longshore --listen 127.0.0.1:4580 --region eu-west-1"
)]
pub struct UpArgs {
    /// Where the data lives.
    #[command(flatten)]
    pub data: DataDirArgs,
    /// The address of the control plane; port 0 takes a free one. Beyond loopback it speaks TLS only.
    #[arg(long, default_value = "127.0.0.1:4580")]
    pub listen: SocketAddr,
    /// The region of requests that name none. Any other region comes into being when it is first used.
    #[arg(long, default_value = "us-east-1")]
    pub region: Region,
    /// The account's id: twelve digits.
    #[arg(long, default_value = "123456789012")]
    pub account: AccountId,
    /// Offer `POST /_longshore/reset` (root-signed), which empties the account: for test suites.
    #[arg(long)]
    pub allow_reset: bool,
    /// Run the control plane's time this many times faster: for test suites.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clock_rate: u32,
    /// Let UpdateService add a load balancer to an existing service, as Amazon does today.
    #[arg(long)]
    pub allow_load_balancer_updates: bool,
    /// Give up the tasks of a container instance whose agent has been away for so many seconds; services replace them. By
    /// default never, as on Amazon: an instance that is only cut off still runs them.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub lost_instance_after: Option<u64>,
    /// Leave /etc/hosts alone.
    #[arg(long)]
    pub no_hosts: bool,
    /// Where images of another registry come from instead, e.g. docker.io=http://127.0.0.1:5000. Can be repeated.
    #[arg(long, value_name = "REGISTRY=URL")]
    pub registry_mirror: Vec<String>,
    /// Most MiB of pulled images to keep that no task uses.
    #[arg(long, value_name = "MIB", default_value_t = agent::IMAGE_CACHE, value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub image_cache: u64,
}

/// Options of `demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  longshore demo --exit && echo it works here")]
pub struct DemoArgs {
    /// Where the data lives.
    #[command(flatten)]
    pub data: DataDirArgs,
    /// Take everything down again at the end; exit 0 only if HTTP through the load balancer reached both tasks.
    #[arg(long)]
    pub exit: bool,
    /// The address of the control plane, if the demo has to start it.
    #[arg(long, default_value = "127.0.0.1:4580")]
    pub listen: SocketAddr,
}

/// Options of `down`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  longshore down --data-dir ./longshore-data --purge")]
pub struct DownArgs {
    /// Where the data lives.
    #[command(flatten)]
    pub data: DataDirArgs,
    /// Remove the data as well.
    #[arg(long)]
    pub purge: bool,
}

/// Options of `agent-image`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The image is of this program, and of this machine's nft and shared libraries. It is run as Amazon's agent is, with NET_ADMIN for \
the way to the tasks' credentials, and /sys/fs/cgroup for limits of whole tasks.\n\n\
Example:\n  longshore agent-image | docker load\n  docker run --detach --name ecs-agent --restart on-failure --network host --cap-add NET_ADMIN \\\n    \
--volume /var/run/docker.sock:/var/run/docker.sock --volume /var/lib/ecs/data:/data --volume /sys/fs/cgroup:/sys/fs/cgroup \\\n    \
--volume $PWD/ca.pem:/ca.pem:ro --env AWS_CA_BUNDLE=/ca.pem --env ECS_BACKEND_HOST=https://192.0.2.10:4580 --env ECS_CLUSTER=web \\\n    \
--env AWS_ACCESS_KEY_ID --env AWS_SECRET_ACCESS_KEY longshore-agent"
)]
pub struct AgentImageArgs {
    /// Where to write it; by default standard output.
    pub file: Option<PathBuf>,
}

/// Runs the command that was given; gives the process's exit code: 0, or 1 with the cause and the mend on standard
/// error (2 for a command line that cannot be understood, as everywhere).
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    logging::start(matches!(
        command,
        Command::Demo(_)
            | Command::Env(_)
            | Command::Down(_)
            | Command::Doctor(_)
            | Command::AgentImage(_)
            | Command::Spot(_)
    ));
    let outcome = match command {
        Command::Up(args) => supervisor::up(args),
        Command::Demo(args) => demo::run(&args),
        Command::Env(args) => commands::env(&args),
        Command::Down(args) => commands::down(&args),
        Command::Doctor(args) => commands::doctor(&args),
        Command::Spot(SpotCommand::Reclaim(args)) => commands::reclaim(&args),
        Command::Server => supervisor::children::server(),
        Command::Host => supervisor::children::host(),
        Command::GuestBoot => guest::boot().map_err(Into::into),
        Command::AgentImage(args) => commands::agent_image(&args),
        Command::Agent(options) => agent::main(options).map_err(Into::into),
        Command::Balancer(options) => balancer::main(options).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_public_command_shows_an_example() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}: no example in its help", command.get_name());
        }
    }
}
