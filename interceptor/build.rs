//! Builds the eBPF half for its own target and leaves its objects in OUT_DIR, without what only debuggers read. With
//! AYA_BUILD_SKIP=1 (for lint and documentation jobs on machines without bpf-linker) the objects are empty, and loading
//! them is an error that says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use aya_build::{Package, Result, Toolchain};

/// The channel of rust-toolchain.toml.
const TOOLCHAIN: &str = "1.95.0";

const OBJECTS: [&str; 4] = ["steer", "hooks", "adopt", "filters"];

/// The first glibc whose loader reads DT_RELR.
const PACKED_RELOCATIONS: (u32, u32) = (2, 36);

fn main() -> Result<()> {
    // The loader reads the relocations at each start, and they stay in the memory of the process: 0.7 MiB unpacked, 0.02
    // packed. Packed, the binary doesn't start where glibc is older than that. glibc promises no more than that what was
    // built with it runs with it and with later ones, so who needs older ones builds where one is, and there nothing is packed.
    if host_glibc() >= Some(PACKED_RELOCATIONS) && env::var("HOST")? == env::var("TARGET")? {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = here.parent().map(PathBuf::from).unwrap_or_default();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for name in OBJECTS {
        fs::write(out.join(name), [])?;
    }
    println!("cargo:rerun-if-changed={}", root.join("interceptor-common").display());
    println!("cargo:rerun-if-changed={}", root.join("Cargo.lock").display());
    // SAFETY: a build script has one thread here. Set only now, so that no other build script sees it: the stable
    // toolchain builds `core` for the bpf target from rust-src.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    let ebpf = root.join("interceptor-ebpf");
    let package = Package { name: "interceptor-ebpf", root_dir: &ebpf.to_string_lossy(), ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(TOOLCHAIN))?;
    OBJECTS.iter().try_for_each(|name| strip(&out.join(name)))
}

/// Takes the DWARF out of an object, from which its BTF was made: five sixths of it, and the daemon has it all in its memory.
fn strip(object: &Path) -> Result<()> {
    // Empty: see above.
    if fs::metadata(object)?.len() == 0 {
        return Ok(());
    }
    let output = Command::new(env::var("RUSTC")?).args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    // The compiler's own, and of its LLVM: GNU's doesn't know this machine everywhere.
    let objcopy = sysroot.join("lib/rustlib").join(env::var("HOST")?).join("bin/rust-objcopy");
    let mut command = Command::new(&objcopy);
    command.env("LD_LIBRARY_PATH", sysroot.join("lib")).arg("--strip-debug").arg(object);
    if !command.status().is_ok_and(|status| status.success()) {
        println!("cargo:warning=`{}` can't be run: the binary is 1 MB larger than need be", objcopy.display());
    }
    Ok(())
}

/// Major and minor version of this machine's glibc; none where another C library is in its place.
fn host_glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = version.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
