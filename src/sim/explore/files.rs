//! Counts rotations, recycled and removed segments, by the names of a store's files.

use super::super::SimDisk;
use super::super::image::{Ino, Names};
use super::diary::Diary;
use crate::io::sync::Arc;
use crate::store::layout::{FileName, parse};
use std::collections::BTreeSet;

/// The files of a store at the last look.
pub(super) struct Files {
    names: Arc<Names>,
    /// Recycled segments, which are to be used again.
    recycled: BTreeSet<Ino>,
}

impl Files {
    pub(super) fn of(disk: &SimDisk) -> Files {
        Files { names: disk.names(), recycled: BTreeSet::new() }
    }

    /// Notes the files after an open, without counting what the open changed.
    pub(super) fn look_anew(&mut self, disk: &SimDisk) {
        self.names = disk.names();
    }

    /// Counts the changes to segments since the last look.
    pub(super) fn count(&mut self, disk: &SimDisk, diary: &mut Diary) {
        let now = disk.names();
        if Arc::ptr_eq(&now, &self.names) {
            return;
        }
        let segments = |names: &Names| -> BTreeSet<Ino> {
            let segments = names.iter().filter(|(name, _)| matches!(parse(name), FileName::Segment { .. }));
            segments.map(|(_, ino)| *ino).collect()
        };
        let (before, after) = (segments(&self.names), segments(&now));
        for entered in after.difference(&before) {
            diary.count("rotated");
            if self.recycled.remove(entered) {
                diary.count("rotated into a recycled segment");
            }
        }
        for left in before.difference(&after) {
            if now.values().any(|ino| ino == left) {
                diary.count("recycled");
                self.recycled.insert(*left);
            } else {
                diary.count("segment removed");
            }
        }
        self.names = now;
    }
}
