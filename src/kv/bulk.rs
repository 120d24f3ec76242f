//! Redoing many commands at once: their writes are gathered, sorted, and merged into the tree.
//!
//! Only blind writes are gathered, of which the last to a key counts. A compare-and-set looks at the state, so all
//! before it is carried out first. Many commands at once are gathered by several threads, each with memory of its own.

use super::codec::{Part, visit};
use super::deal::{deal, most_threads};
use super::tree::{Batch, Tree};
use super::{Kv, KvRejection, check_key, check_value};
use crate::machine::DecodeError;

/// At least so much is gathered.
const LEAST_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 256 << 20 };
/// And no more than this beside a state, or for one that began empty.
const MOST_BYTES: u64 = 1 << 30;
const MOST_FOR_NEW_BYTES: u64 = 4 << 30;

/// A thread more for so many bytes of commands.
const PER_THREAD_BYTES: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// Writes that redo has put off.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    writes: Batch,
    /// How much memory they may take before they are carried out: so much as the state takes, so that each entry is copied a few times
    /// in all, however long the log is.
    limit: u64,
}

impl Gathered {
    /// Nothing yet, to go into a tree.
    fn beside(tree: &Tree) -> Gathered {
        Gathered { writes: Batch::default(), limit: limit_beside(tree) }
    }

    pub(super) fn merge_into(&mut self, tree: &mut Tree) {
        tree.merge(&mut self.writes);
        self.limit = limit_beside(tree);
    }

    /// Gathers as many commands, from the first on, as are blind writes, if there are enough of them for several threads. Returns how many.
    fn gather_at_once(&mut self, tree: &mut Tree, commands: &[&[u8]]) -> usize {
        let bytes: usize = commands.iter().map(|command| command.len()).sum();
        let threads = (bytes / PER_THREAD_BYTES).min(most_threads());
        if threads < 2 {
            return 0;
        }
        let (each, mut rest) = (bytes.div_ceil(threads), commands);
        let mut parts = Vec::with_capacity(threads);
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
        // writes take more here than in the log, by a few bytes each
        let room = |part: &&[&[u8]]| part.iter().map(|command| command.len()).sum::<usize>() / 8 * 9;
        let helpers = self.writes.helpers(parts.iter().map(room));
        let jobs = parts.iter().copied().zip(helpers).collect();
        let gathered = deal(jobs, threads, |(part, writes)| gather(part, writes));
        let mut taken = 0;
        for ((count, writes), part) in gathered.into_iter().zip(parts) {
            self.writes.adopt(writes);
            taken += count;
            if count < part.len() {
                break;
            }
        }
        self.check_room(tree);
        taken
    }

    fn check_room(&mut self, tree: &mut Tree) {
        if self.writes.size() as u64 > self.limit {
            self.make_room(tree);
        }
    }

    /// Of a state that began empty nobody knows how large it will be. As long as hardly anything is overwritten it grows with what is
    /// gathered, and a tree is cheapest if it is built once.
    fn make_room(&mut self, tree: &mut Tree) {
        let live = if tree.is_empty() { self.writes.live_size() as u64 } else { 0 };
        if live > self.limit / 2 && self.limit < MOST_FOR_NEW_BYTES {
            self.limit = (self.limit * 2).min(MOST_FOR_NEW_BYTES);
        } else {
            self.merge_into(tree);
        }
    }
}

fn limit_beside(tree: &Tree) -> u64 {
    tree.payload_bytes().clamp(LEAST_BYTES, MOST_BYTES)
}

/// What needs no look at the state.
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

    fn put_off(self, writes: &mut Batch) -> Result<(), KvRejection> {
        check_key(self.table, self.key)?;
        self.value.map_or(Ok(()), check_value)?;
        writes.push([self.table.as_bytes(), &[0], self.key], self.value);
        Ok(())
    }
}

/// Gathers the commands up to the first that is more than blind writes or is to be refused. Returns how many they are, and the writes. Of
/// the one at which it stops some may be among those: they are put off once more, and the last counts.
fn gather(commands: &[&[u8]], mut writes: Batch) -> (usize, Batch) {
    let blind = |command: &&&[u8]| {
        let put_off = |part| BlindWrite::of(&part).and_then(|write| write.put_off(&mut writes).ok()).ok_or(());
        matches!(visit(command, put_off), Ok(Ok(())))
    };
    let count = commands.iter().take_while(blind).count();
    (count, writes)
}

/// Why the command at an index was not redone.
pub(super) type BulkFault = (usize, Result<KvRejection, DecodeError>);

/// Redoes the commands in order, or as if in order. What they write is gathered in the machine, until that is enough or redo is over.
pub(super) fn redo(kv: &mut Kv, commands: &[&[u8]]) -> Result<(), BulkFault> {
    let mut gathered = kv.gathered.take().unwrap_or_else(|| Box::new(Gathered::beside(&kv.tree)));
    let taken = gathered.gather_at_once(&mut kv.tree, commands);
    for (index, command) in commands.iter().enumerate().skip(taken) {
        let visited = visit(command, |part| match BlindWrite::of(&part) {
            Some(write) => {
                write.put_off(&mut gathered.writes)?;
                gathered.check_room(&mut kv.tree);
                Ok(())
            }
            None => {
                gathered.merge_into(&mut kv.tree);
                kv.redo_part(&part)
            }
        });
        match visited {
            Ok(Ok(())) => {}
            Ok(Err(rejection)) => return Err((index, Ok(rejection))),
            Err(error) => return Err((index, Err(error))),
        }
    }
    kv.gathered = Some(gathered);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvCommand;
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

    /// How much is still put off after so many writes of so many keys.
    fn put_off(writes: u32, keys: u32) -> u64 {
        let mut kv = Kv::default();
        for n in 0..writes {
            let mut bytes = Vec::new();
            Kv::encode(&KvCommand::put("", (n % keys).to_be_bytes(), [7; 100]), &mut bytes);
            redo(&mut kv, &[&bytes]).unwrap();
        }
        let gathered = kv.gathered.as_ref().map_or(0, |gathered| gathered.writes.size() as u64);
        kv.finish_redo();
        assert_eq!(kv.len(), writes.min(keys) as usize);
        gathered
    }

    #[test]
    fn what_is_gathered_grows_with_the_state_and_not_with_the_log() {
        let all = put_off(20_000, 20_000);
        assert!(all > 20_000 * 100, "a state that only grows is built once: {all}");
        let few = put_off(20_000, 10);
        assert!(few <= LEAST_BYTES, "ten keys: {few}");
    }

    proptest! {
        #[test]
        fn redoing_at_once_is_redoing_in_order(commands in prop::collection::vec(command(), 0..60), cas in any::<u8>()) {
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
            let mut at_once = Kv::default();
            let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
            for part in slices.chunks(usize::from(cas) + 1) {
                redo(&mut at_once, part).unwrap();
            }
            at_once.finish_redo();
            let saved = |kv: &Kv| { let mut out = Vec::new(); kv.save(&mut out).unwrap(); out };
            prop_assert_eq!(saved(&at_once), saved(&one_by_one));
        }
    }
}
