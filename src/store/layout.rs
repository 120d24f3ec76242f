//! The names of all files of a store.
//!
//! ```text
//! LOCK                              locked by the process that has the store open
//! MANIFEST-0, MANIFEST-1            the two copies of the manifest
//! 00000001-0000000000000000.seg     segment: id, base LSN in hex
//! spare-00000001                    preallocated segment: allocated and written, no base LSN yet
//! 00000000000f4000.snap             snapshot: its LSN in hex
//! *.tmp                             unfinished file; removed at open
//! ```

use crate::ids::{Lsn, SegmentId};

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const MANIFESTS: [&str; 2] = ["MANIFEST-0", "MANIFEST-1"];
const TEMP: &str = ".tmp";

/// The role of a file in the directory, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Lock,
    Manifest,
    Segment {
        id: SegmentId,
        base: Lsn,
    },
    Preallocated {
        number: u64,
    },
    Snapshot {
        lsn: Lsn,
    },
    /// An unfinished file of this crate.
    Temp,
    /// A file that this crate did not create.
    Foreign,
}

pub(crate) fn segment(id: SegmentId, base: Lsn) -> String {
    format!("{:08}-{:016x}.seg", id.get(), base.get())
}

pub(crate) fn preallocated(number: u64) -> String {
    format!("spare-{number:08}")
}

pub(crate) fn snapshot(lsn: Lsn) -> String {
    format!("{:016x}.snap", lsn.get())
}

pub(crate) fn temp(name: &str) -> String {
    format!("{name}{TEMP}")
}

/// The name of an empty file that marks an unfinished backup, whose snapshot or log begins at this
/// LSN. The mark stays until the manifest is written. No store has a segment with this number.
pub(crate) fn backup_mark(lsn: Lsn) -> String {
    temp(&segment(SegmentId::new(0), lsn))
}

/// The LSN in the name of a backup's mark. `None` if it is no such name.
pub(crate) fn parse_backup_mark(name: &str) -> Option<Lsn> {
    match parse(name.strip_suffix(TEMP)?) {
        FileName::Segment { id, base } if id == SegmentId::new(0) => Some(base),
        _ => None,
    }
}

/// Parses a file name. It recognizes only the exact form that the functions above return.
pub(crate) fn parse(name: &str) -> FileName {
    if let Some(rest) = name.strip_suffix(TEMP) {
        return match parse(rest) {
            FileName::Foreign | FileName::Temp => FileName::Foreign,
            _ => FileName::Temp,
        };
    }
    if name == LOCK {
        return FileName::Lock;
    }
    if MANIFESTS.contains(&name) {
        return FileName::Manifest;
    }
    let parsed = parse_segment(name).or_else(|| parse_spare(name)).or_else(|| parse_snapshot(name));
    parsed.unwrap_or(FileName::Foreign)
}

fn parse_segment(name: &str) -> Option<FileName> {
    let (id, base) = name.strip_suffix(".seg")?.split_once('-')?;
    let id = SegmentId::new(id.parse().ok()?);
    let base = Lsn::new(u64::from_str_radix(base, 16).ok()?);
    (segment(id, base) == name).then_some(FileName::Segment { id, base })
}

fn parse_spare(name: &str) -> Option<FileName> {
    let number = name.strip_prefix("spare-")?.parse().ok()?;
    (preallocated(number) == name).then_some(FileName::Preallocated { number })
}

fn parse_snapshot(name: &str) -> Option<FileName> {
    let lsn = Lsn::new(u64::from_str_radix(name.strip_suffix(".snap")?, 16).ok()?);
    (snapshot(lsn) == name).then_some(FileName::Snapshot { lsn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognized_and_nothing_else_is() {
        let (id, lsn) = (SegmentId::new(7), Lsn::new(0xf4000));
        assert_eq!(parse(&segment(id, lsn)), FileName::Segment { id, base: lsn });
        assert_eq!(parse(&preallocated(3)), FileName::Preallocated { number: 3 });
        assert_eq!(parse(&snapshot(lsn)), FileName::Snapshot { lsn });
        assert_eq!(parse(&temp(&snapshot(lsn))), FileName::Temp);
        assert_eq!(parse("LOCK"), FileName::Lock);
        assert_eq!((parse(&backup_mark(lsn)), parse_backup_mark(&backup_mark(lsn))), (FileName::Temp, Some(lsn)));
        assert_eq!(parse_backup_mark(&temp(&segment(id, lsn))), None);
        for foreign in
            ["", "notes.txt", "notes.txt.tmp", "+0000001-0000000000000000.seg", "1-0.seg", "spare-1", "F.snap"]
        {
            assert_eq!(parse(foreign), FileName::Foreign, "{foreign}");
        }
    }
}
