//! What outlives the daemon: without one, connects are refused; the next takes over what is pinned, without a gap, and
//! nothing that isn't its own.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use interceptor::bpf::{Kernel, Listeners};
use interceptor::ids::LaunchId;
use interceptor::transport::accept::Acceptor;
use interceptor::transport::namespace::{self, Sockets};
use interceptor_tests::netns::{Cgroup, Namespace, Pins, enter};
use interceptor_tests::require_root;
use interceptor_tests::scene::{Scene, answering, original, passed, random_address, refused, told, workload};

/// Not a test: what the process does that another starts inside. That the connect is denied, and not that nothing is
/// there, tells that the hooks are attached.
#[test]
fn child() {
    let Some(role) = enter().unwrap() else { return };
    if role == "attributed" {
        let told = told(&TcpStream::connect("9.9.9.9:443").unwrap());
        assert_eq!(told[2], std::process::id().to_string(), "{told:?}");
        return;
    }
    let error = std::os::unix::net::UnixStream::connect("/nowhere").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn without_a_daemon_connects_are_refused_until_the_next_one() {
    require_root!();
    let scene = Scene::new(&[5432], 100);
    scene.namespace.run(|| {
        assert_eq!(original("9.9.9.9:443"), "9.9.9.9:443");
        let squatters = [TcpListener::bind("0.0.0.0:443").unwrap(), TcpListener::bind("127.0.0.1:5432").unwrap()];
        squatters.iter().for_each(|squatter| squatter.set_nonblocking(true).unwrap());
        scene.acceptor.remove(scene.workload.id);
        let closed = Instant::now();
        // The two listeners close one after the other.
        while !(refused("9.9.9.9:443") && refused("[2001:db8::1]:443")) {
            assert!(closed.elapsed() < Duration::from_secs(20), "a listener is still there");
        }
        for to in ["9.9.9.9:443", "[2001:db8::1]:443", "9.9.9.9:53", "127.0.0.1:53", "127.0.0.1:5432", "192.0.2.2:1"] {
            assert!(refused(to), "{to}");
        }
        assert!(squatters.iter().all(|squatter| squatter.accept().is_err()));
    });

    // A new daemon knows nothing but the pins.
    let kernel = Arc::new(Kernel::load(&scene.pins.path, &scene.cgroup.path).unwrap());
    assert_eq!(kernel.launches().unwrap(), [scene.workload.id]);
    let Sockets { tcp4, tcp6, .. } = namespace::open(scene.namespace.fd()).unwrap();
    let cookie =
        kernel.steer(scene.workload.id, scene.namespace.fd(), &Listeners { v4: &tcp4, v6: &tcp6 }, &[5433]).unwrap();
    assert_eq!(cookie, scene.cookie);
    let acceptor = Acceptor::start(kernel, vec![answering()]).unwrap();
    acceptor.add(scene.workload.clone(), tcp4, tcp6, 100).unwrap();
    scene.namespace.run(|| {
        assert_eq!(original("9.9.9.9:443"), "9.9.9.9:443");
        assert_eq!(original("[2001:db8::1]:443"), "[2001:db8::1]:443");
        assert_eq!(original("127.0.0.1:5433"), "127.0.0.1:5433");
        assert!(refused("127.0.0.1:5432"), "no target names it any more, and nobody listens");
    });
}

#[test]
fn a_takeover_under_load_loses_no_connection() {
    require_root!();
    let (pins, cgroup, namespace) = (Pins::default(), Cgroup::new().unwrap(), Namespace::new().unwrap());
    let workload = workload(cgroup.below("workload").unwrap());
    let kernel = Arc::new(Kernel::load(&pins.path, &cgroup.path).unwrap());
    let Sockets { tcp4, tcp6, .. } = namespace::open(namespace.fd()).unwrap();
    let kept = (tcp4.try_clone().unwrap(), tcp6.try_clone().unwrap());
    let listeners = Listeners { v4: &kept.0, v6: &kept.1 };
    kernel.steer(workload.id, namespace.fd(), &listeners, &[]).unwrap();
    let acceptor = Acceptor::start(kernel, vec![answering()]).unwrap();
    acceptor.add(workload.clone(), tcp4, tcp6, 10_000).unwrap();

    let (done, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (namespace, done, connected) = (&namespace, &done, &connected);
            scope.spawn(move || {
                namespace.run(|| {
                    let mut random = 77 + thread;
                    while !done.load(Ordering::Relaxed) {
                        let to = random_address(&mut random);
                        assert_eq!(original(to), to.to_string());
                        connected.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        let until = Instant::now() + Duration::from_secs(3);
        let mut takeovers = 0;
        while Instant::now() < until || takeovers < 5 {
            let next = Kernel::load(&pins.path, &cgroup.path).unwrap();
            for _ in 0..20 {
                next.steer(workload.id, namespace.fd(), &listeners, &[]).unwrap();
            }
            takeovers += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(connected.into_inner() > 500);
}

#[test]
fn pins_that_are_not_ours_are_an_error_and_are_left_alone() {
    require_root!();
    let (pins, cgroup, namespace) = (Pins::default(), Cgroup::new().unwrap(), Namespace::new().unwrap());
    let kernel = Kernel::load(&pins.path, &cgroup.path).unwrap();
    let launch = LaunchId::new();
    let Sockets { tcp4, tcp6, .. } = namespace::open(namespace.fd()).unwrap();
    let listeners = Listeners { v4: &tcp4, v6: &tcp6 };
    kernel.steer(launch, namespace.fd(), &listeners, &[]).unwrap();

    let v1 = pins.path.join("v1");
    let swap = |one: &str, other: &str| {
        let (one, other, between) = (v1.join(one), v1.join(other), v1.join("between"));
        std::fs::rename(&one, &between).unwrap();
        std::fs::rename(&other, &one).unwrap();
        std::fs::rename(&between, &other).unwrap();
    };
    for (one, other) in [("connect4", "connect6"), ("origins", "unix"), ("publish", "processes")] {
        swap(one, other);
        let error = Kernel::load(&pins.path, &cgroup.path).unwrap_err().to_string();
        assert!(error.contains("is not what it should be"), "{error}");
        swap(one, other);
    }
    // Another namespace under the same launch.
    let stranger = Namespace::new().unwrap();
    let error = kernel.steer(launch, stranger.fd(), &listeners, &[]).unwrap_err().to_string();
    assert!(error.contains("is not what it should be"), "{error}");

    let kernel = Kernel::load(&pins.path, &cgroup.path).unwrap();
    kernel.release(launch).unwrap();
    kernel.release(launch).unwrap();
    assert_eq!(kernel.launches().unwrap(), []);
}

/// Whoever swaps the program of a link leaves the link where it is.
#[test]
fn a_program_that_is_swapped_under_its_link_is_missed() {
    require_root!();
    let (pins, cgroup, namespace) = (Pins::default(), Cgroup::new().unwrap(), Namespace::new().unwrap());
    let kernel = Kernel::load(&pins.path, &cgroup.path).unwrap();
    let launch = LaunchId::new();
    let Sockets { tcp4, tcp6, .. } = namespace::open(namespace.fd()).unwrap();
    let listeners = Listeners { v4: &tcp4, v6: &tcp6 };
    kernel.steer(launch, namespace.fd(), &listeners, &[]).unwrap();
    assert_eq!(kernel.missing(), [""; 0]);
    assert!(kernel.is_steered(launch));

    let other = Kernel::load(&pins.path, &cgroup.path).unwrap();
    other.steer(launch, namespace.fd(), &listeners, &[]).unwrap();
    assert_eq!(other.missing(), [""; 0]);
    assert!(other.is_steered(launch));
    let missing = kernel.missing();
    let hooks = ["connect4", "connect6", "publish", "create", "egress"];
    assert!(hooks.iter().all(|hook| missing.contains(hook)), "{missing:?}");
    assert!(!kernel.is_steered(launch));

    kernel.repair(&cgroup.path).unwrap();
    kernel.steer_again(launch, namespace.fd()).unwrap();
    assert_eq!(kernel.missing(), [""; 0]);
    assert!(kernel.is_steered(launch));
}

/// A map whose pin is gone is in use still: what is attached again has to have it.
#[test]
fn a_repair_keeps_the_maps() {
    require_root!();
    let scene = Scene::new(&[], 100);
    for name in ["origins", "processes", "connect4"] {
        std::fs::remove_file(scene.pins.path.join("v1").join(name)).unwrap();
    }
    scene.kernel.repair(&scene.cgroup.path).unwrap();
    assert_eq!(scene.kernel.missing(), [""; 0]);
    passed(&scene.child("attributed"));
}

#[test]
fn what_the_maps_hold_of_nobody_is_swept() {
    require_root!();
    let (pins, cgroup) = (Pins::default(), Cgroup::new().unwrap());
    let kernel = Kernel::load(&pins.path, &cgroup.path).unwrap();
    for netns in [7, 8] {
        kernel.allow_unix(netns, &["/run/x.sock".into(), "/run/y.sock".into()]).unwrap();
    }
    drop(kernel);
    let kernel = Kernel::load(&pins.path, &cgroup.path).unwrap();
    kernel.know(LaunchId::new(), 8);
    assert_eq!(kernel.spaces().unwrap(), [7, 8].into());
    kernel.sweep().unwrap();
    assert_eq!(kernel.spaces().unwrap(), [8].into());
}

#[test]
fn pins_of_another_layout_are_an_error() {
    require_root!();
    let (pins, cgroup) = (Pins::default(), Cgroup::new().unwrap());
    drop(Kernel::load(&pins.path, &cgroup.path).unwrap());
    std::fs::create_dir(pins.path.join("v0")).unwrap();
    let error = Kernel::load(&pins.path, &cgroup.path).unwrap_err().to_string();
    assert!(error.contains("v0") && error.contains("uninstall --pins"), "{error}");
    std::fs::remove_dir(pins.path.join("v0")).unwrap();
    Kernel::load(&pins.path, &cgroup.path).unwrap();
}

#[test]
fn a_workloads_cgroup_that_was_made_anew_is_attached_to_again() {
    require_root!();
    let (pins, cgroup) = (Pins::default(), Cgroup::new().unwrap());
    let workloads = cgroup.below("workloads").unwrap();
    drop(Kernel::load(&pins.path, &workloads).unwrap());
    std::fs::remove_dir(&workloads).unwrap();
    std::fs::create_dir(&workloads).unwrap();
    let error = Kernel::load(&pins.path, &cgroup.path.join("missing")).unwrap_err().to_string();
    assert!(error.contains("is not a cgroup"), "{error}");
    // The kernel lets go of a removed cgroup's links a moment later.
    let since = Instant::now();
    while let Err(error) = Kernel::load(&pins.path, &workloads) {
        assert!(since.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    passed(&Namespace::new().unwrap().child(&workloads, "child", "").unwrap());
}

#[test]
fn the_probe_finds_this_kernel_able() {
    require_root!();
    let trouble: Vec<_> = interceptor::bpf::probe().into_iter().filter(|finding| finding.trouble.is_some()).collect();
    assert_eq!(trouble, []);
}
