//! The names of a store's files, as `docs/format.md` lists them.

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const MANIFESTS: [&str; 2] = ["MANIFEST-0", "MANIFEST-1"];

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Manifest(usize),
    Segment {
        id: u64,
        base: u64,
    },
    Snapshot {
        lsn: u64,
    },
    Spare {
        number: u64,
    },
    Lock,
    /// An unfinished file.
    Temp,
    Foreign,
}

pub(crate) fn segment(id: u64, base: u64) -> String {
    format!("{id:08}-{base:016x}.seg")
}

pub(crate) fn snapshot(lsn: u64) -> String {
    format!("{lsn:016x}.snap")
}

pub(crate) fn spare(number: u64) -> String {
    format!("spare-{number:08}")
}

pub(crate) fn temp(name: &str) -> String {
    format!("{name}.tmp")
}

pub(crate) fn parse(name: &str) -> Name {
    if let Some(copy) = MANIFESTS.iter().position(|manifest| *manifest == name) {
        return Name::Manifest(copy);
    }
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let segment = || {
        let (id, base) = name.strip_suffix(".seg")?.split_once('-')?;
        Some(Name::Segment { id: id.parse().ok()?, base: hex(base)? })
    };
    let snapshot = || Some(Name::Snapshot { lsn: hex(name.strip_suffix(".snap")?)? });
    let spare = || Some(Name::Spare { number: name.strip_prefix("spare-")?.parse().ok()? });
    match name {
        LOCK => Name::Lock,
        _ if name.ends_with(".tmp") => Name::Temp,
        _ => segment().or_else(snapshot).or_else(spare).unwrap_or(Name::Foreign),
    }
}
