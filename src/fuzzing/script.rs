//! The program's transaction scripts.

use crate::cli::script::{Operation, Script, escape, parse};

/// A script: what can be read comes back when it is written again, and an error names a line that is there.
pub fn script(data: &[u8]) {
    let transactions = match parse(data) {
        Ok(transactions) => transactions,
        Err(error) => {
            let lines = data.split(|byte| *byte == b'\n').count() as u64;
            assert!((1..=lines).contains(&error.line), "{error}: of {lines}");
            return;
        }
    };
    let mut written = Vec::new();
    for transaction in &transactions {
        for step in &transaction.steps {
            let fields: &[&[u8]] = match &step.operation {
                Operation::Put { key, value } => &[b"put", key, value],
                Operation::Delete { key } => &[b"del", key],
            };
            for (at, field) in fields.iter().enumerate() {
                if at > 0 {
                    written.push(b'\t');
                    escape(field, &mut written);
                } else {
                    written.extend_from_slice(field);
                }
            }
            written.push(b'\n');
        }
        written.extend_from_slice(b"commit\n");
    }
    let mut script = Script::new(&written[..]);
    for transaction in &transactions {
        let again = script.next_transaction().unwrap().unwrap();
        let operations = |steps: &[crate::cli::script::Step]| -> Vec<Operation> {
            steps.iter().map(|step| step.operation.clone()).collect()
        };
        assert_eq!(operations(&again.steps), operations(&transaction.steps));
    }
    assert!(script.next_transaction().unwrap().is_none());
}
