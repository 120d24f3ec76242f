//! What becomes of the segments of a store, seen from the names of its files.

use super::super::SimDisk;
use super::super::state::{Ino, Names};
use super::run::Diary;
use crate::io::sync::Arc;
use crate::store::layout::{FileName, parse};
use std::collections::BTreeSet;

/// The files that an engine left behind when they were looked at last.
pub(super) struct Files {
    names: Arc<Names>,
    /// Those that were segments and are to be used again.
    recycled: BTreeSet<Ino>,
}

impl Files {
    pub(super) fn of(disk: &SimDisk) -> Files {
        Files { names: disk.names(), recycled: BTreeSet::new() }
    }

    /// Takes what there is now for granted: an engine was opened.
    pub(super) fn look_anew(&mut self, disk: &SimDisk) {
        self.names = disk.names();
    }

    /// Counts what happened to segments since the last look.
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
