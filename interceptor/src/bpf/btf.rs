//! Looking names up in the kernel's own type information (`/sys/kernel/btf/vmlinux`, Documentation/bpf/btf.rst): aya
//! parses all of it, which takes tens of MiB, and keeps the ids to itself.

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_FUNC: u32 = 12;

/// The id of the function `name`.
pub(super) fn function_id(btf: &[u8], name: &str) -> Option<u32> {
    Types::new(btf)?.find(KIND_FUNC, name).map(|found| found.id)
}

/// Where the member `member` of the structure `name` is, in bytes from its start.
pub(super) fn member_offset(btf: &[u8], name: &str, member: &str) -> Option<i16> {
    let types = Types::new(btf)?;
    let found = types.find(KIND_STRUCT, name)?;
    let at = (0..found.members).map(|index| found.at + 12 + index * 12).find(|at| types.is_named(*at, member))?;
    // With bit fields in the structure, the upper byte is the field's width; 0 for others.
    let bits = types.word(at + 8)?;
    (bits.is_multiple_of(8)).then(|| i16::try_from(bits / 8).ok()).flatten()
}

struct Type {
    id: u32,
    at: usize,
    members: usize,
}

struct Types<'a> {
    btf: &'a [u8],
    start: usize,
    end: usize,
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn new(btf: &'a [u8]) -> Option<Self> {
        let mut types = Self { btf, start: 0, end: 0, strings: &[] };
        if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = types.word(4)? as usize;
        types.start = header.checked_add(types.word(8)? as usize)?;
        types.end = types.start.checked_add(types.word(12)? as usize)?;
        types.strings = btf.get(header.checked_add(types.word(16)? as usize)?..)?;
        Some(types)
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.btf.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn is_named(&self, at: usize, name: &str) -> bool {
        let text = self.word(at).and_then(|offset| self.strings.get(offset as usize..));
        text.is_some_and(|text| text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0))
    }

    fn find(&self, wanted: u32, name: &str) -> Option<Type> {
        let mut at = self.start;
        let mut id = 1;
        while at < self.end {
            let info = self.word(at + 4)?;
            let (kind, members) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            if kind == wanted && self.is_named(at, name) {
                return Some(Type { id, at, members });
            }
            at += 12 + bytes_after(kind, members)?;
            id += 1;
        }
        None
    }
}

/// How many bytes follow a type's three words.
fn bytes_after(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        KIND_STRUCT | 5 | 15 | 19 => members * 12,
        // ENUM, FUNC_PROTO
        6 | 13 => members * 8,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=KIND_FUNC | 16 | 18 => 0,
        _ => return None,
    })
}
