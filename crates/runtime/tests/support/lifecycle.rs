//! Create, start, signal, execute into, end, delete.

use std::fs;
use std::time::{Duration, SystemTime};

use runtime::{ContainerError, File, Group, Mount, State, Tmpfs};

use crate::world::{World, command, eventually, printed, shell, text};

pub async fn a_command_runs_and_its_end_is_told(world: World) {
    let runtime = world.runtime().await;
    for (id, script, code, signal) in
        [("zero", "exit 0", 0, None), ("three", "exit 3", 3, None), ("killed", "kill -9 $$; sleep 1", 137, None)]
    {
        let before = SystemTime::now();
        let mut spec = world.spec(id, &["/bin/sh", "-c", &format!("({script})")]);
        spec.init = id == "killed";
        let container = runtime.create(id, spec).await.unwrap();
        let started = container.start().await.unwrap();
        let exit = container.wait().await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (Some(code), signal, false), "{id}");
        assert!(before <= started && started <= exit.finished_at && exit.started_at == Some(started));
        assert_eq!(container.state(), State::Exited(exit));
        assert_eq!(container.pid(), None);
    }
}

pub async fn created_is_not_running(world: World) {
    let runtime = world.runtime().await;
    let container = runtime.create("one", world.spec("one", &["/bin/touch", "/ran"])).await.unwrap();
    assert_eq!(container.state(), State::Created);
    assert!(container.pid().is_some());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let marker = world.directory.join("writable/one/upper/ran");
    assert!(!marker.exists());
    assert!(matches!(
        runtime.create("one", world.spec("one", &["/bin/true"])).await,
        Err(ContainerError::AlreadyExists { .. })
    ));
    assert!(matches!(container.exec(command(&["/bin/true"])).await, Err(ContainerError::NotRunning)));
    container.start().await.unwrap();
    container.wait().await;
    assert!(marker.exists());
    assert!(matches!(container.start().await, Err(ContainerError::NotRunning)));
    assert!(matches!(container.signal(15).await, Err(ContainerError::NotRunning)));
}

pub async fn what_cannot_be_executed_is_named(world: World) {
    let runtime = world.runtime().await;
    let make = async |id: &str, args: &[&str], user: &str, cwd: &str| {
        let mut spec = world.spec(id, args);
        spec.user = user.to_owned();
        spec.cwd = cwd.to_owned();
        match runtime.create(id, spec).await {
            Ok(container) => {
                let error = container.start().await.unwrap_err();
                container.delete().await.unwrap();
                error
            }
            Err(error) => error,
        }
    };
    use ContainerError::{ExecFormat, ExecutableDenied, ExecutableNotFound, NoSuchGroup, NoSuchUser, WorkingDirectory};
    assert!(
        matches!(make("a", &["/bin/nothing"], "", "").await, ExecutableNotFound { executable } if executable == "/bin/nothing")
    );
    assert!(matches!(make("b", &["nothing"], "", "").await, ExecutableNotFound { .. }));
    assert!(matches!(make("c", &["/etc/passwd"], "", "").await, ExecutableDenied { .. }));
    assert!(matches!(make("d", &["/etc"], "", "").await, ExecutableDenied { .. }));
    assert!(matches!(make("e", &["/etc/notaprogram"], "", "").await, ExecFormat { .. }));
    assert!(matches!(make("f", &["/bin/true"], "nobody", "").await, NoSuchUser { user } if user == "nobody"));
    assert!(matches!(make("g", &["/bin/true"], "app:nogroup", "").await, NoSuchGroup { group } if group == "nogroup"));
    assert!(matches!(make("h", &["/bin/true"], "", "/etc/passwd").await, WorkingDirectory { .. }));
    assert!(matches!(make("i", &[""], "", "").await, ContainerError::InvalidSpec { .. }));
    assert!(matches!(make("../x", &["/bin/true"], "", "").await, ContainerError::InvalidSpec { .. }));
    assert_eq!(runtime.list().len(), 0);
    assert_eq!(fs::read_dir(world.directory.join("containers")).unwrap().count(), 0, "something is left behind");
}

pub async fn signals_and_escalation(world: World) {
    let runtime = world.runtime().await;
    let handles = runtime
        .create(
            "handles",
            world.spec("handles", &["/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"]),
        )
        .await
        .unwrap();
    handles.start().await.unwrap();
    assert!(handles.logs().next(1).await.unwrap().is_some());
    handles.signal(15).await.unwrap();
    assert_eq!(handles.wait().await.code, Some(7));
    // A first process without a handler does not notice SIGTERM, as everywhere.
    let ignores = runtime.create("ignores", world.spec("ignores", &["/bin/sleep", "1000"])).await.unwrap();
    ignores.start().await.unwrap();
    ignores.signal(15).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), ignores.wait()).await.is_err());
    ignores.signal(9).await.unwrap();
    let exit = ignores.wait().await;
    assert_eq!((exit.code, exit.signal), (Some(137), Some(9)));
}

pub async fn a_small_init_forwards_and_reaps(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec("init", &["/bin/sleep", "1000"]);
    spec.init = true;
    let container = runtime.create("init", spec).await.unwrap();
    container.start().await.unwrap();
    let processes = container.exec(shell("setsid sh -c 'sleep 0.1 &'; sleep 0.5; ps -o pid,stat,args")).await.unwrap();
    assert!(
        text(&processes).lines().any(|line| line.trim_start().starts_with("2 ") && line.contains("sleep 1000")),
        "{}",
        text(&processes)
    );
    assert!(!text(&processes).contains(" Z "), "{}", text(&processes));
    let status = container
        .exec(shell("grep -E 'Seccomp:|NoNewPrivs' /proc/1/status; readlink /proc/1/exe || echo unreadable"))
        .await
        .unwrap();
    assert!(text(&status).contains("Seccomp:\t2") && text(&status).contains("unreadable"), "{}", text(&status));
    container.signal(15).await.unwrap();
    assert_eq!(container.wait().await.code, Some(143));
    let mut missing = world.spec("missing", &["/bin/nothing"]);
    missing.init = true;
    assert!(matches!(runtime.create("missing", missing).await, Err(ContainerError::ExecutableNotFound { .. })));
    let mut format = world.spec("format", &["/etc/notaprogram"]);
    format.init = true;
    let container = runtime.create("format", format).await.unwrap();
    assert!(matches!(container.start().await, Err(ContainerError::ExecFormat { .. })));
}

pub async fn users_are_the_images_own(world: World) {
    for (number, (user, expected)) in
        [("", "0 0 0"), ("app", "1000 1001 1001 50"), ("1000:0", "1000 0 0"), ("4242", "4242 0 0")]
            .into_iter()
            .enumerate()
    {
        let (code, out, err) = world
            .script(&format!("u{number}"), "echo $(id -u) $(id -g) $(id -G); echo to-stdout > /dev/stdout", |spec| {
                user.clone_into(&mut spec.user)
            })
            .await;
        assert_eq!((code, out), (Some(0), format!("{expected}\nto-stdout\n")), "{user:?} {err}");
    }
}

pub async fn working_directory_environment_and_files(world: World) {
    let (code, out, err) = world
        .script(
            "one",
            "pwd; echo $HOME $GREETING $HOSTNAME $(hostname); cat /etc/hosts; echo $PATH; echo more >> /etc/hosts",
            |spec| {
                spec.cwd = "/made/on/demand".to_owned();
                spec.user = "app".to_owned();
                spec.env = vec!["GREETING=hello world".to_owned()];
                spec.files =
                    vec![File { target: "/etc/hosts".to_owned(), content: "10.0.0.1 here\n".to_owned(), mode: 0o666 }];
            },
        )
        .await;
    assert_eq!(
        out,
        "/made/on/demand\n/home/app hello world box box\n10.0.0.1 here\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
        "{err}"
    );
    assert_eq!(code, Some(0), "{err}");
    // Generated files lie with what the container writes, whose room is bounded: it may write to them too.
    let file = world.directory.join("writable/one/upper.files/0");
    assert_eq!(fs::read_to_string(file).unwrap(), "10.0.0.1 here\nmore\n");
}

pub async fn mounts_tmpfs_and_read_only_root(world: World) {
    let (data, fixed) = (world.directory.join("data"), world.directory.join("fixed"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(&fixed).unwrap();
    fs::write(fixed.join("file"), "fixed\n").unwrap();
    let script = "echo x > /data/new; cat /fixed/file; touch /fixed/no 2>/dev/null || echo ro-mount; touch /no 2>/dev/null || echo ro-root; touch /scratch/yes && echo tmpfs; \
                  dd if=/dev/zero of=/scratch/big bs=1M count=8 2>/dev/null || echo tmpfs-full; df -k /dev/shm | grep -c 32768";
    let (code, out, err) = world
        .script("one", script, |spec| {
            spec.read_only_root = true;
            spec.shm_size_bytes = Some(32 << 20);
            spec.mounts = vec![
                Mount { source: data.clone(), target: "/data".to_owned(), read_only: false },
                Mount { source: fixed.clone(), target: "/fixed".to_owned(), read_only: true },
            ];
            spec.tmpfs = vec![Tmpfs {
                target: "/scratch".to_owned(),
                size_bytes: 4 << 20,
                options: vec!["mode=1777".to_owned()],
            }];
        })
        .await;
    assert_eq!((code, out.as_str()), (Some(0), "fixed\nro-mount\nro-root\ntmpfs\ntmpfs-full\n1\n"), "{err}");
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "x\n");
    let runtime = world.runtime().await;
    let mut spec = world.spec("two", &["/bin/true"]);
    spec.mounts = vec![Mount { source: world.directory.join("absent"), target: "/x".to_owned(), read_only: false }];
    assert!(matches!(runtime.create("two", spec).await, Err(ContainerError::Mount { .. })));
}

pub async fn commands_inside(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec("one", &["/bin/sleep", "1000"]);
    spec.user = "app".to_owned();
    spec.env = vec!["COLOUR=blue".to_owned()];
    spec.cwd = "/home/app".to_owned();
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    let outcome = container.exec(shell("echo $(id -u) $COLOUR $(pwd); echo error >&2; exit 5")).await.unwrap();
    assert_eq!((outcome.code, text(&outcome).as_str(), outcome.timed_out), (5, "1000 blue /home/app\nerror\n", false));
    let mut other = shell("id -u; echo $COLOUR");
    other.user = Some("root".to_owned());
    other.env = Some(vec!["COLOUR=red".to_owned()]);
    assert_eq!(text(&container.exec(other).await.unwrap()), "0\nred\n");
    assert!(matches!(container.exec(command(&["nothing"])).await, Err(ContainerError::ExecutableNotFound { .. })));
    let mut slow = shell("echo before; sleep 1000");
    // An emulated processor needs most of a second to get as far as the first line.
    slow.timeout = Duration::from_secs(2);
    let outcome = container.exec(slow).await.unwrap();
    assert!(outcome.timed_out && outcome.code == 137 && text(&outcome) == "before\n", "{outcome:?}");
    let mut long = shell("yes | head -c 100000");
    long.output_limit = 1000;
    assert_eq!(container.exec(long).await.unwrap().output.len(), 1000);
    // What a command leaves in the background does not hold up its answer.
    let outcome = container.exec(shell("sleep 1000 & echo done"));
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), outcome).await.expect("an answer").unwrap().code, 0);
    let many = (0..10).map(|_| container.exec(shell("exit 0")));
    for outcome in futures_join(many).await {
        assert_eq!(outcome.unwrap().code, 0);
    }
    container.signal(9).await.unwrap();
    container.wait().await;
    assert!(matches!(container.exec(command(&["/bin/true"])).await, Err(ContainerError::NotRunning)));
}

async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.map(Box::pin).collect();
    let mut results = Vec::new();
    for future in &mut pinned {
        results.push(future.await);
    }
    results
}

pub async fn namespaces_are_shared_when_asked(world: World) {
    let runtime = world.runtime().await;
    let first = runtime.create("first", world.spec("first", &["/bin/sleep", "1000"])).await.unwrap();
    first.start().await.unwrap();
    let pid = first.pid().unwrap();
    let mut spec =
        world.spec("second", &["/bin/sh", "-c", "ps -o args | grep -c '[s]leep 1000'; ip link | grep -c ': lo'"]);
    spec.pid_namespace_of = Some(pid);
    spec.network_namespace = Some(format!("/proc/{pid}/ns/net").into());
    let second = runtime.create("second", spec).await.unwrap();
    second.start().await.unwrap();
    assert_eq!(second.wait().await.code, Some(0));
    assert_eq!(printed(&second).await.0, "1\n1\n");
    assert!(matches!(first.state(), State::Running { .. }));
}

pub async fn a_deleted_container_leaves_nothing(world: World) {
    let runtime = world.runtime().await;
    let container =
        runtime.create("one", world.spec("one", &["/bin/sh", "-c", "sleep 1000 & sleep 1000"])).await.unwrap();
    container.start().await.unwrap();
    let pid = container.pid().unwrap();
    container.delete().await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!container.directory().exists() && !world.directory.join("writable/one/upper").exists());
    assert!(!Group::open(&format!("{}/one", world.cgroup)).unwrap().exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.directory.to_str().unwrap()));
    assert!(runtime.get("one").is_none());
    container.delete().await.unwrap();
    // And the id is free again.
    let again = runtime.create("one", world.spec("one", &["/bin/true"])).await.unwrap();
    again.start().await.unwrap();
    assert_eq!(again.wait().await.code, Some(0));
    let shims =
        || fs::read_to_string(again.directory().join("shim.json")).ok().is_some_and(|text| text.contains("\"pid\""));
    eventually("the shim's file is there", shims).await;
}

pub async fn a_released_container_goes_on_where_it_was(world: World) {
    let runtime = world.runtime().await;
    for round in 1..=3 {
        let container = runtime
            .create(
                "one",
                world.spec("one", &["/bin/sh", "-c", "echo x >> /log; rm -f /etc/group; wc -l < /log; ls /etc"]),
            )
            .await
            .unwrap();
        container.start().await.unwrap();
        container.wait().await;
        assert_eq!(printed(&container).await.0, format!("{round}\nnotaprogram\npasswd\n"));
        container.release().await.unwrap();
    }
}

pub async fn an_image_with_nothing_but_a_program(world: World) {
    let bare = world.directory.join("bare");
    fs::create_dir_all(&bare).unwrap();
    fs::copy("/bin/busybox", bare.join("busybox")).unwrap();
    let runtime = world.runtime().await;
    for (id, user, read_only) in [("root", "", false), ("user", "1234:5678", false), ("read-only", "", true)] {
        let mut spec = world
            .spec(id, &["/busybox", "sh", "-c", "/busybox cat /etc/hosts; /busybox id -u; echo $HOME; /busybox ls /"]);
        spec.rootfs.lowers = vec![bare.clone()];
        spec.user = user.to_owned();
        spec.read_only_root = read_only;
        spec.files =
            vec![File { target: "/etc/hosts".to_owned(), content: "127.0.0.1 localhost\n".to_owned(), mode: 0o644 }];
        let container = runtime.create(id, spec).await.unwrap();
        container.start().await.unwrap();
        assert_eq!(container.wait().await.code, Some(0));
        let uid = user.split(':').next().filter(|uid| !uid.is_empty()).unwrap_or("0");
        assert_eq!(
            printed(&container).await,
            (format!("127.0.0.1 localhost\n{uid}\n/\nbusybox\ndev\netc\nproc\nsys\n"), String::new()),
            "{id}"
        );
    }
}

pub async fn sixty_layers(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec("one", &["/bin/sh", "-c", "cat /numbers/* | wc -l; cat /top"]);
    for number in 0..60 {
        let layer = world.directory.join(format!("a-layer-with-quite-a-long-name-as-digests-are-{number:064}"));
        fs::create_dir_all(layer.join("numbers")).unwrap();
        fs::write(layer.join(format!("numbers/{number}")), "x\n").unwrap();
        fs::write(layer.join("top"), format!("{number}\n")).unwrap();
        spec.rootfs.lowers.push(layer);
    }
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    container.wait().await;
    assert_eq!(printed(&container).await, ("60\n59\n".to_owned(), String::new()));
}
