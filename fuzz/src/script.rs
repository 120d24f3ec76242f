//! The target for transaction scripts of the program.

use seawal_cli::script::{Operation, Script, escape, parse};

/// A script. A script that can be parsed is the same after it was written and parsed again. An
/// error names an existing line.
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
            written.extend_from_slice(b"table\t");
            escape(step.table.as_bytes(), &mut written);
            written.push(b'\n');
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
        let operations = |steps: &[seawal_cli::script::Step]| -> Vec<_> {
            steps.iter().map(|step| (step.table.clone(), step.operation.clone())).collect()
        };
        assert_eq!(operations(&again.steps), operations(&transaction.steps));
    }
    assert!(script.next_transaction().unwrap().is_none());
}
