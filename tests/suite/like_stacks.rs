//! Machines that equal the stacks except for one method.

/// Used in an `impl StateMachine` for a type whose first field is `Stacks`. It forwards the named
/// parts to the stacks, or `all` parts.
macro_rules! as_the_stacks {
    (all) => { as_the_stacks!(commands apply decode save load); };
    ($($part:ident)+) => { $(as_the_stacks!(@$part);)+ };
    (@commands) => {
        type Command = $crate::common::Cmd;
        type Reply = u32;
        type Rejection = $crate::common::Empty;
        as_the_stacks!(@coding);
    };
    (@coding) => {
        fn footprint(command: &Self::Command) -> seawal::machine::Footprint {
            $crate::common::Stacks::footprint(command)
        }
        fn encode(command: &Self::Command, out: &mut Vec<u8>) {
            $crate::common::Stacks::encode(command, out);
        }
    };
    (@apply) => {
        fn apply(&mut self, command: &Self::Command) -> Result<(u32, Self::Command), Self::Rejection> {
            self.0.apply(command)
        }
    };
    (@decode) => {
        fn decode(bytes: &[u8], version: u32) -> Result<Self::Command, seawal::machine::DecodeError> {
            $crate::common::Stacks::decode(bytes, version)
        }
    };
    (@save) => {
        fn save(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
            self.0.save(out)
        }
    };
    (@load) => {
        fn load(input: &mut dyn std::io::BufRead, version: u32) -> Result<Self, seawal::machine::DecodeError> {
            let (stacks, mut machine) = ($crate::common::Stacks::load(input, version)?, Self::default());
            machine.0 = stacks;
            Ok(machine)
        }
    };
}
pub(crate) use as_the_stacks;
