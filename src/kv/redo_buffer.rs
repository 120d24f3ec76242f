//! The redo of many commands: a buffer of their writes, which is sorted and merged into the tree
//! when it is full or redo ends.
//!
//! Only blind writes are buffered; the last write to a key wins. A compare-and-set reads the state,
//! so the buffer is merged before it. Large groups of commands are decoded by several threads, each
//! with memory of its own.

use super::codec::{Part, visit};
use super::command::KvRejection;
use super::keys::with_composite;
use super::limits::{check_expected, check_key, check_value};
use super::tree::{Batch, Tree, Tuning};
use crate::io::parallel::{max_threads, parallel_map};
use crate::machine::RedoFault;

/// Sizes that tests make small.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedoTuning {
    /// The buffer of a small state holds this much before it is merged, unless `max_bytes` is less.
    pub(super) min_bytes: u64,
    /// The buffer holds at most this much. Recovery needs this memory in addition to the state.
    pub(super) max_bytes: u64,
    /// One more thread decodes commands for each of this number of bytes: milliseconds of work,
    /// while starting a thread takes microseconds.
    pub(super) bytes_per_thread: usize,
    pub(super) batch: Tuning,
}

impl Default for RedoTuning {
    fn default() -> Self {
        RedoTuning {
            min_bytes: 64 << 20,
            // the engine sets its own bound
            max_bytes: 1 << 30,
            bytes_per_thread: 1 << 20,
            batch: Tuning::default(),
        }
    }
}

#[cfg(test)]
impl RedoTuning {
    /// Small buffers and many threads, for small tests.
    pub(super) fn small() -> Self {
        RedoTuning { min_bytes: 4 << 10, bytes_per_thread: 64, batch: Tuning::small(), ..RedoTuning::default() }
    }
}

/// Buffered writes.
#[derive(Clone, Debug)]
pub(super) struct RedoBuffer {
    writes: Batch,
    /// How many bytes the writes may take before they are merged: about half as many as the state
    /// takes. So each entry is copied a few times in all, because the log that is redone is rarely
    /// larger than the state.
    limit: u64,
    tuning: RedoTuning,
}

impl RedoBuffer {
    /// An empty buffer of writes to a tree.
    pub(super) fn new(tree: &Tree, tuning: RedoTuning) -> RedoBuffer {
        let mut buffer = RedoBuffer { writes: Batch::new(&tuning.batch), limit: 0, tuning };
        buffer.set_limit(tree);
        buffer
    }

    /// Redoes the commands, with the outcome of redoing them in order. Their writes stay in the
    /// buffer until it is full or redo ends.
    pub(super) fn redo(&mut self, tree: &mut Tree, commands: &[&[u8]]) -> Result<(), RedoFault> {
        let taken = self.buffer_in_parallel(tree, commands);
        for (index, command) in commands.iter().enumerate().skip(taken) {
            let visited = visit(command, |part| {
                if let Some(write) = BlindWrite::of(&part) {
                    write.buffer(&mut self.writes)?;
                    self.merge_if_full(tree, 0);
                } else if let Part::CompareAndSet { table, key, expected, new } = part {
                    self.merge_into(tree);
                    redo_compare_and_set(tree, (table, key), expected, new)?;
                }
                Ok(())
            });
            visited
                .map_err(|error| RedoFault::unreadable(index, error))?
                .map_err(|_rejection: KvRejection| RedoFault::rejected(index))?;
        }
        Ok(())
    }

    /// Sets the number of bytes that the buffer holds at most.
    pub(super) fn limit_memory(&mut self, tree: &Tree, max_bytes: u64) {
        if self.tuning.max_bytes != max_bytes {
            self.tuning.max_bytes = max_bytes;
            self.set_limit(tree);
        }
    }

    fn set_limit(&mut self, tree: &Tree) {
        let RedoTuning { min_bytes, max_bytes, .. } = self.tuning;
        self.limit = (tree.payload_bytes() / 2).max(min_bytes).min(max_bytes);
    }

    /// Merges all writes into the tree.
    pub(super) fn merge_into(&mut self, tree: &mut Tree) {
        tree.merge(&mut self.writes);
        self.set_limit(tree);
    }

    /// Buffers the leading commands that are blind writes, with several threads. Returns how many
    /// these are: none if there are too few for several threads.
    fn buffer_in_parallel(&mut self, tree: &mut Tree, commands: &[&[u8]]) -> usize {
        let bytes: usize = commands.iter().map(|command| command.len()).sum();
        let threads = (bytes / self.tuning.bytes_per_thread).min(max_threads());
        if threads < 2 {
            return 0;
        }
        self.merge_if_full(tree, bytes as u64);
        let parts = split_by_bytes(commands, bytes.div_ceil(threads));
        // a write takes a few bytes more here than in the log
        let room = |part: &&[&[u8]]| part.iter().map(|command| command.len()).sum::<usize>() / 8 * 9;
        let batches = self.writes.split_free_memory(parts.iter().map(room));
        let jobs = parts.iter().copied().zip(batches).collect();
        let buffered = parallel_map(jobs, threads, |(part, writes)| buffer_blind_writes(part, writes));
        let mut taken = 0;
        for ((count, writes), part) in buffered.into_iter().zip(parts) {
            self.writes.adopt(writes);
            taken += count;
            if count < part.len() {
                break;
            }
        }
        self.merge_if_full(tree, 0);
        taken
    }

    /// Merges the writes into the tree if there is no room for so many bytes more.
    fn merge_if_full(&mut self, tree: &mut Tree, more_bytes: u64) {
        let size = self.writes.size() as u64;
        if size == 0 || size.saturating_add(more_bytes) <= self.limit {
            return;
        }
        // The final size of a state that begins empty is unknown. While little is
        // overwritten, it grows with the buffer, and building the tree once is cheapest.
        let live = if tree.is_empty() { self.writes.live_size() as u64 } else { 0 };
        if live > self.limit / 2 && self.limit < self.tuning.max_bytes {
            self.limit = self.limit.saturating_mul(2).min(self.tuning.max_bytes);
        } else {
            self.merge_into(tree);
        }
    }
}

/// Splits the commands into consecutive parts of about `each` bytes.
fn split_by_bytes<'a>(commands: &'a [&'a [u8]], each: usize) -> Vec<&'a [&'a [u8]]> {
    let (mut parts, mut rest) = (Vec::new(), commands);
    while !rest.is_empty() {
        let mut before = 0;
        let fits = |command: &&&[u8]| {
            let fits = before < each;
            before += command.len();
            fits
        };
        let (part, behind) = rest.split_at(rest.iter().take_while(fits).count());
        parts.push(part);
        rest = behind;
    }
    parts
}

/// A write that does not read the state.
struct BlindWrite<'a> {
    table: &'a str,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> BlindWrite<'a> {
    fn of(part: &Part<'a>) -> Option<Self> {
        match *part {
            Part::Put { table, key, value } => Some(BlindWrite { table, key, value: Some(value) }),
            Part::Delete { table, key } => Some(BlindWrite { table, key, value: None }),
            Part::CompareAndSet { .. } | Part::Batch(_) => None,
        }
    }

    fn buffer(self, writes: &mut Batch) -> Result<(), KvRejection> {
        check_key(self.table, self.key)?;
        self.value.map_or(Ok(()), check_value)?;
        writes.push([self.table.as_bytes(), &[0], self.key], self.value);
        Ok(())
    }
}

/// Buffers the leading commands that consist of valid blind writes. Returns how many these are, and
/// the writes.
///
/// Some writes of the command after them may be buffered too. The caller buffers them again, and
/// the last write to a key wins.
fn buffer_blind_writes(commands: &[&[u8]], mut writes: Batch) -> (usize, Batch) {
    let is_blind = |command: &&&[u8]| {
        let buffer = |part| BlindWrite::of(&part).and_then(|write| write.buffer(&mut writes).ok()).ok_or(());
        matches!(visit(command, buffer), Ok(Ok(())))
    };
    let count = commands.iter().take_while(is_blind).count();
    (count, writes)
}

/// Carries out a compare-and-set without keeping the previous value.
fn redo_compare_and_set(
    tree: &mut Tree,
    (table, key): (&str, &[u8]),
    expected: Option<&[u8]>,
    new: Option<&[u8]>,
) -> Result<(), KvRejection> {
    check_key(table, key)?;
    new.map_or(Ok(()), check_value)?;
    with_composite(table, key, |composite| {
        check_expected(tree.get(composite), expected)?;
        match new {
            Some(value) => drop(tree.insert_and_read(composite, value, |_| ())),
            None => drop(tree.remove(composite)),
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Kv, KvCommand};
    use crate::machine::{BulkMachine, StateMachine};
    use proptest::prelude::*;

    fn command() -> impl Strategy<Value = KvCommand> {
        let key = || prop::collection::vec(0u8..3, 0..12);
        let single = prop_oneof![
            (key(), any::<Vec<u8>>()).prop_map(|(k, v)| KvCommand::put("", k, v)),
            (key(), any::<u8>()).prop_map(|(k, v)| KvCommand::put("t", k, [v])),
            key().prop_map(|k| KvCommand::delete("", k)),
        ];
        prop::collection::vec(single, 1..5).prop_map(KvCommand::batch)
    }

    fn small_buffers() -> Kv {
        let buffer = RedoBuffer::new(&Tree::default(), RedoTuning::small());
        Kv { redo_buffer: Some(Box::new(buffer)), ..Kv::default() }
    }

    /// How many bytes are still buffered after this number of writes to this number of keys.
    fn buffered_bytes(writes: u32, keys: u32) -> u64 {
        let mut kv = small_buffers();
        for n in 0..writes {
            let mut bytes = Vec::new();
            Kv::encode(&KvCommand::put("", (n % keys).to_be_bytes(), [7; 100]), &mut bytes);
            kv.redo(&[&bytes], Kv::VERSION).unwrap();
        }
        let buffered = kv.redo_buffer.as_ref().map_or(0, |buffer| buffer.writes.size() as u64);
        kv.finish_redo();
        assert_eq!(kv.len(), writes.min(keys) as usize);
        buffered
    }

    #[test]
    fn a_logged_command_that_the_state_rejects_is_refused_by_its_index() {
        let long = vec![7; crate::kv::MAX_KEY_LEN + 1];
        let refused = [
            KvCommand::compare_and_set("", "a", Some("2"), Some("3")),
            KvCommand::compare_and_set("", "a", None::<&str>, Some("3")),
            KvCommand::compare_and_set("", "b", Some("1"), None::<&str>),
            KvCommand::compare_and_set("", long.clone(), None::<&str>, Some("3")),
            KvCommand::put("", long, "3"),
        ];
        for command in refused {
            let encoded = [KvCommand::put("", "a", "1"), command].map(|command| {
                let mut bytes = Vec::new();
                Kv::encode(&command, &mut bytes);
                bytes
            });
            for mut kv in [Kv::default(), small_buffers()] {
                let fault = kv.redo(&[&encoded[0], &encoded[1]], Kv::VERSION).unwrap_err();
                assert!(fault.index == 1 && fault.unreadable.is_none(), "{fault:?}");
                kv.finish_redo();
                assert_eq!((kv.get("", "a"), kv.len()), (Some(&b"1"[..]), 1));
            }
        }
    }

    #[test]
    fn what_is_gathered_grows_with_the_state_and_not_with_the_log() {
        let all = buffered_bytes(20_000, 20_000);
        assert!(all > 20_000 * 100, "a state that only grows is built once: {all}");
        let few = buffered_bytes(20_000, 10);
        assert!(few <= RedoTuning::small().min_bytes, "ten keys: {few}");
    }

    /// S14: The memory of redo beyond the state has the bound that is set, or that of one group of
    /// commands, whether the state is empty or not and whether threads decode the commands or not.
    #[test]
    fn what_is_gathered_is_bounded_by_what_is_set() {
        const LIMIT: u64 = 32 << 10;
        for (group, distinct) in [(1, 1 << 20), (20, 1 << 20), (20, 500)] {
            let mut kv = small_buffers();
            let mut most = 0;
            for from in (0u32..10_000).step_by(group) {
                let commands: Vec<Vec<u8>> = (from..from + group as u32)
                    .map(|n| {
                        let mut bytes = Vec::new();
                        Kv::encode(&KvCommand::put("", (n % distinct).to_be_bytes(), [7; 100]), &mut bytes);
                        bytes
                    })
                    .collect();
                kv.limit_redo_memory(LIMIT);
                kv.redo(&commands.iter().map(Vec::as_slice).collect::<Vec<_>>(), Kv::VERSION).unwrap();
                most = most.max(kv.redo_buffer.as_ref().map_or(0, |buffer| buffer.writes.size() as u64));
            }
            kv.finish_redo();
            assert_eq!(kv.len(), 10_000.min(distinct as usize));
            assert!((LIMIT / 4..=LIMIT + 200 * group as u64).contains(&most), "{group} commands at once: {most}");
        }
    }

    proptest! {
        #[test]
        fn redoing_at_once_is_redoing_in_order(
            commands in prop::collection::vec(command(), 0..60),
            cas in any::<u8>(),
            memory_bytes in 0u64..8 << 10,
        ) {
            let mut one_by_one = Kv::default();
            let mut encoded = Vec::new();
            for (n, command) in commands.iter().enumerate() {
                let mut commands = vec![command.clone()];
                if n % 7 == 3 {
                    let expected = one_by_one.get("", [1]).map(<[u8]>::to_vec);
                    commands.insert(0, KvCommand::CompareAndSet {
                        table: "".into(), key: vec![1], expected, new: Some(vec![cas, n as u8]),
                    });
                }
                for command in commands {
                    one_by_one.apply(&command).unwrap();
                    let mut bytes = Vec::new();
                    Kv::encode(&command, &mut bytes);
                    encoded.push(bytes);
                }
            }
            let mut at_once = small_buffers();
            let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
            for part in slices.chunks(usize::from(cas) + 1) {
                at_once.limit_redo_memory(memory_bytes);
                at_once.redo(part, Kv::VERSION).unwrap();
            }
            at_once.finish_redo();
            let saved = |kv: &Kv| { let mut out = Vec::new(); kv.save(&mut out).unwrap(); out };
            prop_assert_eq!(saved(&at_once), saved(&one_by_one));
        }
    }
}
