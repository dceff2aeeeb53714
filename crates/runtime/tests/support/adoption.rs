//! Callers and shims die; containers do not.

use std::process::{Command, Stdio};
use std::time::Duration;

use runtime::{Group, Runtime, State};

use crate::world::{World, eventually, printed, shell, text};

/// A second process of this binary that creates containers and then is killed: `adoption-child <directory> <cgroup>`.
pub fn child(arguments: &[String]) -> ! {
    let world = World { directory: arguments[1].clone().into(), cgroup: arguments[2].clone() };
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    tokio.block_on(async {
        let runtime = world.runtime().await;
        for (id, script) in [
            ("runs", "echo before; sleep 1; echo after; sleep 1000"),
            ("ends", "echo short; exit 6"),
            ("waits", "exit 4"),
        ] {
            let container = runtime.create(id, world.spec(id, &["/bin/sh", "-c", script])).await.unwrap();
            if id != "waits" {
                container.start().await.unwrap();
            }
        }
        std::fs::write(world.directory.join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
    unreachable!()
}

pub async fn a_restarted_caller_finds_everything(world: World) {
    let mut caller = Command::new("/proc/self/exe")
        .args(["adoption-child", world.directory.to_str().unwrap(), &world.cgroup])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let ready = world.directory.join("ready");
    eventually("the first caller is ready", || ready.exists()).await;
    caller.kill().unwrap();
    caller.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // Half-made things of a caller that died early are removed.
    std::fs::create_dir(world.directory.join("containers/half")).unwrap();
    let runtime = world.runtime().await;
    let ids: Vec<String> = runtime.list().iter().map(|container| container.id().to_owned()).collect();
    assert_eq!(ids, ["ends", "runs", "waits"]);
    assert!(!world.directory.join("containers/half").exists());
    let (runs, ends, waits) =
        (runtime.get("runs").unwrap(), runtime.get("ends").unwrap(), runtime.get("waits").unwrap());
    assert!(matches!(runs.state(), State::Running { .. }));
    assert_eq!(ends.wait().await.code, Some(6));
    assert_eq!(printed(&ends).await.0, "short\n");
    let lines = runs.logs().next(10).await.unwrap().unwrap();
    assert_eq!(lines.iter().map(|line| line.bytes.as_slice()).collect::<Vec<_>>(), [b"before".as_slice(), b"after"]);
    assert_eq!(text(&runs.exec(shell("echo inside")).await.unwrap()), "inside\n");
    assert_eq!(waits.state(), State::Created);
    waits.start().await.unwrap();
    assert_eq!(waits.wait().await.code, Some(4));
    runs.signal(9).await.unwrap();
    assert_eq!(runs.wait().await.code, Some(137));
    for container in runtime.list() {
        container.delete().await.unwrap();
    }
    assert_eq!(std::fs::read_dir(world.directory.join("containers")).unwrap().count(), 0);
}

pub async fn a_killed_shim_leaves_the_container_running(world: World) {
    let runtime = world.runtime().await;
    let container = runtime.create("one", world.spec("one", &["/bin/sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let pid = container.pid().unwrap();
    let shim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(container.directory().join("shim.json")).unwrap()).unwrap();
    assert!(Command::new("kill").args(["-9", &shim["pid"].to_string()]).status().unwrap().success());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(container.state(), State::Running { .. }));
    // Found again by the next caller too, which can still measure, signal and see the end.
    let again = world.runtime().await;
    let container = again.get("one").unwrap();
    assert_eq!(container.pid(), Some(pid));
    assert!(container.stats().unwrap().pids >= 1);
    container.signal(9).await.unwrap();
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.started_at.is_some()), (None, true));
    assert_eq!(container.logs().next(1).await.unwrap(), None);
    container.delete().await.unwrap();
    assert!(!container.directory().exists());
}

pub async fn destroy_sweeps_up(world: World) {
    let containers = world.directory.join("containers");
    let runtime = world.runtime().await;
    for id in ["one", "two"] {
        let container =
            runtime.create(id, world.spec(id, &["/bin/sh", "-c", "sleep 1000 & sleep 1000"])).await.unwrap();
        container.start().await.unwrap();
    }
    let shim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(containers.join("two/shim.json")).unwrap()).unwrap();
    assert!(Command::new("kill").args(["-9", &shim["pid"].to_string()]).status().unwrap().success());
    let cgroup = world.cgroup.clone();
    let report = tokio::task::spawn_blocking({
        let containers = containers.clone();
        move || (Runtime::destroy(&containers, &cgroup).unwrap(), Runtime::destroy(&containers, &cgroup).unwrap())
    })
    .await
    .unwrap();
    assert_eq!(report.0.containers, 2);
    assert!(report.0.processes >= 4, "{report:?}");
    assert_eq!((report.1.containers, report.1.processes, report.1.mounts), (0, 0, 0));
    assert!(!Group::open(&world.cgroup).unwrap().exists());
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(containers.to_str().unwrap()));
}
