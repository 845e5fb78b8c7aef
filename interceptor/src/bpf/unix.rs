//! Connects and sends to pathname unix sockets: denied for all workloads but for the paths that a namespace is allowed, or
//! an adopted workload. Abstract sockets belong to a network namespace: they pass in a launched workload's, and are denied
//! in one that others share. aya doesn't know these hooks (`BPF_CGROUP_UNIX_CONNECT`
//! and `_SENDMSG`, Linux 6.7), so the program is assembled here.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData};
use interceptor_common::{
    DEEPEST_LEVEL, Fate, Kind, MISSED_COUNT, MISSED_KNOWN, MISSED_LEVEL, MISSED_PARENT, MISSED_SINCE, MISSED_WORKLOAD,
    STATE_STEERED, SpaceKey, UNIX_PATH_BYTES, UnixKey,
};

use super::sys::{self, Insn};
use super::{BpfError, btf, io_error, map_error, pin};

/// What becomes of a workload's connects to pathname unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnixSockets {
    /// Those to paths that aren't allowed are denied (EACCES).
    Filtered,
    /// All connects to unix sockets are denied, abstract ones too: the kernel doesn't let a program read the path.
    Denied,
    /// Nothing is denied here, for want of the hook (Linux 6.7): only the mount namespace hides them. The containment
    /// level of every workload is *steered*.
    Open,
}

/// The pathname unix sockets that may be connected to.
pub(super) type Allowed = HashMap<MapData, UnixKey, u8>;

/// The most paths that all workloads together may be allowed.
const ALLOWED_ENTRIES: u32 = 8192;

const HOOKS: [(&str, &[u8; 16], u32); 2] = [
    ("unix_connect", b"unix_connect\0\0\0\0", sys::ATTACH_UNIX_CONNECT),
    ("unix_sendmsg", b"unix_sendmsg\0\0\0\0", sys::ATTACH_UNIX_SENDMSG),
];

/// Loads the hooks, pins them below `root`, and gives the map of what is allowed. What becomes of each is counted in `spaces`.
pub(super) fn attach(
    root: &Path,
    target: &pin::Target<'_>,
    spaces: BorrowedFd<'_>,
    programs: &mut pin::Programs,
) -> Result<(UnixSockets, Allowed), BpfError> {
    attach_for(root, target, Whose::Launched { spaces }, programs)
}

/// The maps that tell which processes are an adopted workload's, and count what they try.
#[derive(Clone, Copy)]
pub(super) struct Adopted<'a> {
    /// The governed cgroups.
    pub(super) governed: BorrowedFd<'a>,
    /// The levels of the tree at which there are some.
    pub(super) levels: BorrowedFd<'a>,
    /// Those that there was no room for.
    pub(super) missed: BorrowedFd<'a>,
    /// The ledger's counts.
    pub(super) tallies: BorrowedFd<'a>,
}

/// As [`attach`] for adopted workloads, on the root of cgroup2.
pub(super) fn attach_adopted(
    root: &Path,
    target: &pin::Target<'_>,
    whose: Adopted<'_>,
    programs: &mut pin::Programs,
) -> Result<(UnixSockets, Allowed), BpfError> {
    attach_for(root, target, Whose::Adopted(whose), programs)
}

/// That what was put right holds as much as before.
///
/// # Errors
/// The hooks were there, and can't be loaded any more.
pub(super) fn as_before(before: UnixSockets, now: UnixSockets) -> Result<(), BpfError> {
    if now == UnixSockets::Open && before != UnixSockets::Open {
        let source = io::Error::other("the kernel took them before, and doesn't now");
        return Err(io_error("loading the hooks on unix sockets".into(), source));
    }
    Ok(())
}

/// Whose sockets a program judges.
#[derive(Clone, Copy)]
enum Whose<'a> {
    /// Of all processes below the cgroup that it is attached to; by the network namespace.
    Launched {
        /// The ledger's counts.
        spaces: BorrowedFd<'a>,
    },
    /// Of the processes that are governed; by the workload.
    Adopted(Adopted<'a>),
}

fn attach_for(
    root: &Path,
    target: &pin::Target<'_>,
    whose: Whose<'_>,
    programs: &mut pin::Programs,
) -> Result<(UnixSockets, Allowed), BpfError> {
    let failed = |source| map_error("unix", source);
    let map = allowed(&root.join("unix"))?;
    let mut outcome = UnixSockets::Filtered;
    for (name, label, attach_type) in HOOKS {
        let Ok((program, reached)) = load(map.as_fd(), label, attach_type, whose) else {
            outcome = UnixSockets::Open;
            break;
        };
        programs.insert(name, pin::attach(&root.join(name), program.as_fd(), target, attach_type)?);
        if reached == UnixSockets::Denied {
            outcome = reached;
        }
    }
    let map = MapData::from_fd(map).map_err(failed)?;
    Ok((outcome, HashMap::try_from(Map::HashMap(map)).map_err(failed)?))
}

/// What this kernel can do, found by loading.
pub(super) fn probe() -> (UnixSockets, Option<io::Error>) {
    let loaded = sys::create_hash(b"unix\0\0\0\0\0\0\0\0\0\0\0\0", size_of::<UnixKey>(), 1, 1).and_then(|map| {
        let spaces = sys::create_hash(b"spaces\0\0\0\0\0\0\0\0\0\0", size_of::<SpaceKey>(), 8, 1)?;
        load(map.as_fd(), HOOKS[0].1, HOOKS[0].2, Whose::Launched { spaces: spaces.as_fd() })
    });
    match loaded {
        Ok((_, reached)) => (reached, None),
        Err(error) => (UnixSockets::Open, Some(error)),
    }
}

/// The key under which a path is allowed.
pub(super) fn key(netns: u64, path: &Path) -> Result<UnixKey, BpfError> {
    let bytes = path.as_os_str().as_bytes();
    let mut key = UnixKey { netns, path: [0; 112] };
    if bytes.is_empty() || bytes.len() > UNIX_PATH_BYTES || bytes.contains(&0) {
        let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
        return Err(io_error(
            format!("allowing the unix socket `{}` (1 to {UNIX_PATH_BYTES} bytes)", path.display()),
            source,
        ));
    }
    key.path[..bytes.len()].copy_from_slice(bytes);
    Ok(key)
}

/// Replaces the paths that are allowed under `owner`: a network namespace's cookie, or an adopted workload.
pub(super) fn replace(map: &mut Allowed, owner: u64, paths: &[PathBuf]) -> Result<(), BpfError> {
    let failed = |source| map_error("unix", source);
    let wanted = paths.iter().map(|path| key(owner, path)).collect::<Result<Vec<UnixKey>, _>>()?;
    let there = map.keys().collect::<Result<Vec<UnixKey>, _>>().map_err(failed)?;
    for key in there.iter().filter(|key| key.netns == owner && !wanted.contains(key)) {
        map.remove(key).map_err(failed)?;
    }
    for key in wanted {
        map.insert(key, 1, 0).map_err(failed)?;
    }
    Ok(())
}

fn allowed(path: &Path) -> Result<OwnedFd, BpfError> {
    pin::check_map(path, sys::MAP_HASH, size_of::<UnixKey>(), 1)?;
    sys::open(path)
        .or_else(|_| {
            let map = sys::create_hash(b"unix\0\0\0\0\0\0\0\0\0\0\0\0", size_of::<UnixKey>(), 1, ALLOWED_ENTRIES)?;
            sys::pin(map.as_fd(), path)?;
            Ok(map)
        })
        .map_err(|source| io_error(format!("making the map `{}`", path.display()), source))
}

fn load(
    map: BorrowedFd<'_>,
    name: &[u8; 16],
    attach_type: u32,
    whose: Whose<'_>,
) -> io::Result<(OwnedFd, UnixSockets)> {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let layout = (|| {
        Some(Layout {
            cast: btf::function_id(&types, "bpf_cast_to_kern_ctx")?.cast_signed(),
            address: btf::member_offset(&types, "bpf_sock_addr_kern", "uaddr")?,
            length: btf::member_offset(&types, "bpf_sock_addr_kern", "uaddrlen")?,
        })
    })();
    let filtered = layout.and_then(|layout| sys::load_sock_addr(name, attach_type, &filter(&layout, map, whose)).ok());
    match filtered {
        Some(program) => Ok((program, UnixSockets::Filtered)),
        None => {
            let mut program = begin(whose);
            let at_deny = program.len();
            program.extend(count(whose, Fate::Refused));
            let program = match whose {
                // Nobody passes, and the kernel takes no program with an end that isn't reached.
                Whose::Launched { .. } => program.into_iter().chain(deny()).collect(),
                Whose::Adopted(_) => resolve(program, at_deny, Vec::new()),
            };
            sys::load_sock_addr(name, attach_type, &program).map(|program| (program, UnixSockets::Denied))
        }
    }
}

/// Where things are in this kernel.
struct Layout {
    /// The BTF id of the kfunc that gives the kernel's side of the context.
    cast: i32,
    /// The offset of `uaddr` in `struct bpf_sock_addr_kern`.
    address: i16,
    /// The offset of `uaddrlen`.
    length: i16,
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R6: u8 = 6;
const R7: u8 = 7;
const R8: u8 = 8;
/// An adopted workload's number, once it is known.
const R9: u8 = 9;
const FRAME: u8 = 10;

const LD_IMM64: u8 = 0x18;
const LDX_W: u8 = 0x61;
const LDX_B: u8 = 0x71;
const LDX_DW: u8 = 0x79;
const ST_DW: u8 = 0x7a;
const STX_W: u8 = 0x63;
const STX_DW: u8 = 0x7b;
const ST_W: u8 = 0x62;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const MOV: u8 = 0xb7;
const MOV_REG: u8 = 0xbf;
const JA: u8 = 0x05;
const JEQ: u8 = 0x15;
const JEQ_REG: u8 = 0x1d;
const JGT: u8 = 0x25;
const JNE: u8 = 0x55;
const JNE_REG: u8 = 0x5d;
const JLT_REG: u8 = 0xad;
const JSLT: u8 = 0xc5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_KFUNC: u8 = 2;

const MAP_LOOKUP_ELEM: i32 = 1;
const PROBE_READ_KERNEL: i32 = 113;
const PROBE_READ_KERNEL_STR: i32 = 115;
const GET_NETNS_COOKIE: i32 = 122;
const GET_CURRENT_ANCESTOR_CGROUP_ID: i32 = 123;
const SET_RETVAL: i32 = 187;

/// Jump targets, put in place of offsets until the program's length is known.
const TO_ALLOW: i16 = i16::MAX;
const TO_DENY: i16 = i16::MAX - 1;
const TO_GOVERNED: i16 = i16::MAX - 2;
/// Allowed by a rule, and counted.
const TO_PASS: i16 = i16::MAX - 3;
/// In no governed cgroup.
const TO_MISSED: i16 = i16::MAX - 4;

/// On the stack: the key, and below it the address's bytes as they came. The key's first field is the cookie.
const KEY: i32 = -(size_of::<UnixKey>() as i32);
const KEY_PATH: i32 = KEY + 8;
const RAW: i32 = KEY - 112;
/// A cgroup's id, or the key of a count.
const SMALL: i32 = RAW - 8;
/// The key of a launched workload's count; for adopted ones a level of the tree.
const SPACE: i32 = SMALL - size_of::<SpaceKey>() as i32;

fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, registers: dst | (src << 4), off, imm }
}

fn call(helper: i32) -> Insn {
    op(CALL, R0, 0, 0, helper)
}

/// Puts the address of a place on the stack into a register.
fn stack(register: u8, at: i32) -> [Insn; 2] {
    [op(MOV_REG, register, FRAME, 0, 0), op(ADD, register, 0, 0, at)]
}

/// Denies everything.
fn deny() -> Vec<Insn> {
    vec![op(MOV, R1, 0, 0, -libc::EACCES), call(SET_RETVAL), op(MOV, R0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]
}

/// Lets everybody through who isn't governed; goes on with the workload's number in `R9`, if it isn't refused altogether.
fn only_governed(maps: Adopted<'_>) -> Vec<Insn> {
    // In `R8` is in the end the id of the cgroup that the process is in at the deepest level at which there are governed ones,
    // as the other hooks have it. `R9` is nobody until it is known who.
    let mut program = vec![op(MOV_REG, R6, R1, 0, 0), op(MOV, R8, 0, 0, 0), op(MOV, R9, 0, 0, 0)];
    program.extend(element(maps.levels, 0, LDX_W, R7));
    for level in 1..=DEEPEST_LEVEL {
        program.extend([
            op(MOV, R1, 0, 0, level.cast_signed()),
            call(GET_CURRENT_ANCESTOR_CGROUP_ID),
            op(JEQ, R0, 0, TO_MISSED, 0),
            op(MOV_REG, R1, R7, 0, 0),
            op(AND, R1, 0, 0, 1 << level),
            // Over the next one.
            op(JEQ, R1, 0, 1, 0),
            op(MOV_REG, R8, R0, 0, 0),
            op(STX_DW, FRAME, R0, SMALL as i16, 0),
            op(LD_IMM64, R1, PSEUDO_MAP_FD, 0, maps.governed.as_raw_fd()),
            op(0, 0, 0, 0, 0),
        ]);
        program.extend(stack(R2, SMALL));
        program.extend([call(MAP_LOOKUP_ELEM), op(JNE, R0, 0, TO_GOVERNED, 0)]);
    }
    let at_missed = program.len();
    program.extend(only_missed(maps.missed));
    let at_governed = program.len();
    program.extend([
        op(LDX_W, R9, R0, 0, 0),
        op(LDX_W, R1, R0, 4, 0),
        op(JNE, R1, 0, TO_DENY, STATE_STEERED.cast_signed()),
    ]);
    land(&mut program, TO_MISSED, at_missed);
    land(&mut program, TO_GOVERNED, at_governed);
    program
}

/// Lets everybody through who isn't governed, but for who is in a cgroup that was made since there was no room for another one
/// in the same place, as the other hooks do: denied, with that one's workload in `R9`.
fn only_missed(map: BorrowedFd<'_>) -> Vec<Insn> {
    let number = |at: u32, register: u8| element(map, at, LDX_DW, register);
    let mut program = number(MISSED_COUNT, R7);
    program.extend(number(MISSED_KNOWN, R1));
    program.push(op(JEQ_REG, R1, R7, TO_ALLOW, 0));
    program.extend(number(MISSED_WORKLOAD, R9));
    program.extend(number(MISSED_SINCE, R7));
    program.extend(number(MISSED_LEVEL, R1));
    program.extend([
        op(STX_DW, FRAME, R1, SPACE as i16, 0),
        // Over the next two, which are for what is in several places.
        op(JNE, R1, 0, 2, 0),
        op(JLT_REG, R8, R7, TO_ALLOW, 0),
        op(JA, 0, 0, TO_DENY, 0),
        call(GET_CURRENT_ANCESTOR_CGROUP_ID),
        op(JLT_REG, R0, R7, TO_ALLOW, 0),
    ]);
    program.extend(number(MISSED_PARENT, R7));
    program.extend([
        op(LDX_DW, R1, FRAME, SPACE as i16, 0),
        op(ADD, R1, 0, 0, -1),
        call(GET_CURRENT_ANCESTOR_CGROUP_ID),
        op(JNE_REG, R0, R7, TO_ALLOW, 0),
        op(JA, 0, 0, TO_DENY, 0),
    ]);
    program
}

/// Reads an element of an array into a register, as long as `load` loads.
fn element(map: BorrowedFd<'_>, at: u32, load: u8, register: u8) -> Vec<Insn> {
    let mut program = vec![
        op(ST_W, FRAME, 0, SMALL as i16, at.cast_signed()),
        op(LD_IMM64, R1, PSEUDO_MAP_FD, 0, map.as_raw_fd()),
        op(0, 0, 0, 0, 0),
    ];
    program.extend(stack(R2, SMALL));
    // It is always there.
    program.extend([call(MAP_LOOKUP_ELEM), op(JEQ, R0, 0, TO_DENY, 0), op(load, register, R0, 0, 0)]);
    program
}

/// How a program begins: with its context in `R6`, and for adopted workloads as [`only_governed`].
fn begin(whose: Whose<'_>) -> Vec<Insn> {
    match whose {
        Whose::Launched { .. } => vec![op(MOV_REG, R6, R1, 0, 0)],
        Whose::Adopted(maps) => only_governed(maps),
    }
}

/// Counts one, where the daemon has made room for the count.
fn count(whose: Whose<'_>, fate: Fate) -> Vec<Insn> {
    let what = (Kind::Unix as u32 | ((fate as u32) << 16)).cast_signed();
    let (mut program, map, key) = match whose {
        Whose::Launched { spaces } => {
            let program = vec![
                op(MOV_REG, R1, R6, 0, 0),
                call(GET_NETNS_COOKIE),
                op(STX_DW, FRAME, R0, SPACE as i16, 0),
                op(ST_W, FRAME, 0, (SPACE + 8) as i16, what),
                op(ST_W, FRAME, 0, (SPACE + 12) as i16, 0),
            ];
            (program, spaces, SPACE)
        }
        Whose::Adopted(maps) => {
            let program = vec![op(STX_W, FRAME, R9, SMALL as i16, 0), op(ST_W, FRAME, 0, (SMALL + 4) as i16, what)];
            (program, maps.tallies, SMALL)
        }
    };
    program.extend([op(LD_IMM64, R1, PSEUDO_MAP_FD, 0, map.as_raw_fd()), op(0, 0, 0, 0, 0)]);
    program.extend(stack(R2, key));
    program.extend([
        call(MAP_LOOKUP_ELEM),
        op(JEQ, R0, 0, 3, 0),
        op(LDX_DW, R1, R0, 0, 0),
        op(ADD, R1, 0, 0, 1),
        op(STX_DW, R0, R1, 0, 0),
    ]);
    program
}

/// Denies pathname sockets that the map doesn't hold for the socket's network namespace, or the task's workload.
fn filter(layout: &Layout, map: BorrowedFd<'_>, whose: Whose<'_>) -> Vec<Insn> {
    let mut program = begin(whose);
    let of_abstract = if matches!(whose, Whose::Launched { .. }) { TO_ALLOW } else { TO_DENY };
    program.extend([
        op(MOV_REG, R1, R6, 0, 0),
        op(CALL, R0, PSEUDO_KFUNC, 0, layout.cast),
        op(LDX_DW, R7, R0, layout.address, 0),
        op(LDX_W, R8, R0, layout.length, 0),
        // The path's length: without the family before it. Less than one byte is more than all when unsigned.
        op(ADD, R8, 0, 0, -2),
        op(JGT, R8, 0, TO_DENY, UNIX_PATH_BYTES as i32),
        op(JEQ, R8, 0, TO_DENY, 0),
    ]);
    program.extend((RAW / 8..0).map(|word| op(ST_DW, FRAME, 0, (word * 8) as i16, 0)));
    program.extend(stack(R1, RAW));
    program.extend([
        op(MOV_REG, R2, R8, 0, 0),
        op(MOV_REG, R3, R7, 0, 0),
        op(ADD, R3, 0, 0, 2),
        call(PROBE_READ_KERNEL),
        op(JNE, R0, 0, TO_DENY, 0),
        op(LDX_B, R1, FRAME, RAW as i16, 0),
        op(JEQ, R1, 0, of_abstract, 0),
    ]);
    // A path ends at its first NUL, or where the address does; what may stand behind it is none of the kernel's business
    // when it looks the path up, and so not ours.
    program.extend(stack(R1, KEY_PATH));
    program.push(op(MOV, R2, 0, 0, 112));
    program.extend(stack(R3, RAW));
    program.extend([call(PROBE_READ_KERNEL_STR), op(JSLT, R0, 0, TO_DENY, 0)]);
    match whose {
        Whose::Launched { .. } => {
            program.extend([op(MOV_REG, R1, R6, 0, 0), call(GET_NETNS_COOKIE), op(STX_DW, FRAME, R0, KEY as i16, 0)])
        }
        Whose::Adopted(_) => program.push(op(STX_DW, FRAME, R9, KEY as i16, 0)),
    }
    program.extend([op(LD_IMM64, R1, PSEUDO_MAP_FD, 0, map.as_raw_fd()), op(0, 0, 0, 0, 0)]);
    program.extend(stack(R2, KEY));
    program.extend([call(MAP_LOOKUP_ELEM), op(JNE, R0, 0, TO_PASS, 0)]);

    let at_deny = program.len();
    program.extend(count(whose, Fate::Refused));
    resolve(program, at_deny, count(whose, Fate::Allowed))
}

/// Ends a program by denying, and puts offsets in place of the jump targets. `passing` is done before what a rule allows passes.
fn resolve(mut program: Vec<Insn>, at_deny: usize, passing: Vec<Insn>) -> Vec<Insn> {
    program.extend(deny());
    let at_pass = program.len();
    program.extend(passing);
    let at_allow = program.len();
    program.extend([op(MOV, R0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    land(&mut program, TO_DENY, at_deny);
    land(&mut program, TO_PASS, at_pass);
    land(&mut program, TO_ALLOW, at_allow);
    program
}

/// Puts offsets in place of a jump target, which is at `to`.
fn land(program: &mut [Insn], target: i16, to: usize) {
    for (at, insn) in program.iter_mut().enumerate() {
        if insn.off == target {
            insn.off = (to - at - 1) as i16;
        }
    }
}
