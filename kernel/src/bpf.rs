//! Classic BPF (linux/filter.h): which messages a socket receives at all. The kernel runs the program for
//! each message, so that nobody is woken up for the others.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};

/// How much is loaded, in network byte order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
}

/// What is asked of the accumulator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    /// It is this number.
    Equals(u32),
    /// It is greater than this number.
    Above(u32),
    /// It has one of these bits.
    HasBits(u32),
}

/// A place in a program, to which it can jump forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

#[derive(Clone, Copy, Debug)]
enum Instruction {
    Plain { code: u32, k: u32 },
    GoTo(Label),
    GoToIf(Test, Label),
}

/// A program under construction. Loading from behind the end of a message ends the program: the message is
/// dropped.
#[derive(Debug, Default)]
pub(crate) struct FilterProgram {
    instructions: Vec<Instruction>,
    /// For each label the index of the instruction that it stands before.
    places: Vec<Option<usize>>,
}

impl FilterProgram {
    /// A label that is placed later.
    pub(crate) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Places a label before the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.instructions.len());
    }

    /// Loads the accumulator from an offset.
    pub(crate) fn load(&mut self, size: Size, offset: u32) {
        self.plain(libc::BPF_LD | libc::BPF_ABS | size.code(), offset);
    }

    /// Loads the accumulator from an offset behind the index.
    pub(crate) fn load_behind_index(&mut self, size: Size, offset: u32) {
        self.plain(libc::BPF_LD | libc::BPF_IND | size.code(), offset);
    }

    /// Sets the index to a number.
    pub(crate) fn set_index(&mut self, number: u32) {
        self.plain(libc::BPF_LDX | libc::BPF_IMM, number);
    }

    /// Adds the accumulator to the index.
    pub(crate) fn advance_index(&mut self) {
        self.plain(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0);
        self.plain(libc::BPF_MISC | libc::BPF_TAX, 0);
    }

    /// Keeps these bits of the accumulator.
    pub(crate) fn mask(&mut self, bits: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits);
    }

    /// Multiplies the accumulator.
    pub(crate) fn multiply(&mut self, factor: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, factor);
    }

    /// Continues at a label.
    pub(crate) fn go_to(&mut self, label: Label) {
        self.instructions.push(Instruction::GoTo(label));
    }

    /// Continues at a label if the accumulator passes a test.
    pub(crate) fn go_to_if(&mut self, test: Test, label: Label) {
        self.instructions.push(Instruction::GoToIf(test, label));
    }

    /// Receives so many bytes of the message.
    pub(crate) fn accept(&mut self, length: u32) {
        self.plain(libc::BPF_RET | libc::BPF_K, length);
    }

    /// Ends without the message.
    pub(crate) fn drop_message(&mut self) {
        self.accept(0);
    }

    /// Has the kernel run the program for every message that the socket would receive from now on.
    pub(crate) fn attach(&self, socket: &impl AsFd) -> io::Result<()> {
        let mut filter = self.assemble().ok_or(io::ErrorKind::InvalidInput)?;
        let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // The kernel copies the program during the call.
        let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
        Ok(setsockopt(socket, AttachFilter, &program)?)
    }

    fn plain(&mut self, code: u32, k: u32) {
        self.instructions.push(Instruction::Plain { code, k });
    }

    /// None if a jump leads nowhere, backward or too far.
    fn assemble(&self) -> Option<Vec<libc::sock_filter>> {
        let assembled = self.instructions.iter().enumerate().map(|(at, instruction)| {
            let (code, k, jt) = match *instruction {
                Instruction::Plain { code, k } => (code, k, 0),
                Instruction::GoTo(label) => {
                    let distance = u32::try_from(self.distance(at, label)?).ok()?;
                    (libc::BPF_JMP | libc::BPF_JA, distance, 0)
                }
                Instruction::GoToIf(test, label) => {
                    let (code, k) = test.code();
                    (libc::BPF_JMP | code | libc::BPF_K, k, u8::try_from(self.distance(at, label)?).ok()?)
                }
            };
            Some(libc::sock_filter { code: u16::try_from(code).ok()?, jt, jf: 0, k })
        });
        assembled.collect()
    }

    /// How many instructions are skipped by a jump.
    fn distance(&self, from: usize, to: Label) -> Option<usize> {
        self.places[to.0]?.checked_sub(from + 1)
    }
}

impl Size {
    fn code(self) -> u32 {
        match self {
            Size::Byte => libc::BPF_B,
            Size::Half => libc::BPF_H,
        }
    }
}

impl Test {
    fn code(self) -> (u32, u32) {
        match self {
            Test::Equals(number) => (libc::BPF_JEQ, number),
            Test::Above(number) => (libc::BPF_JGT, number),
            Test::HasBits(bits) => (libc::BPF_JSET, bits),
        }
    }
}

sockopt_impl!(
    /// `SO_ATTACH_FILTER`
    AttachFilter,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_ATTACH_FILTER,
    libc::sock_fprog
);

/// What of a message is left by a program, run by this kernel: a local socket is filtered as others are.
#[cfg(test)]
pub(crate) fn run(program: &FilterProgram, message: &[u8]) -> Option<Vec<u8>> {
    let (from, to) = std::os::unix::net::UnixDatagram::pair().unwrap();
    to.set_nonblocking(true).unwrap();
    program.attach(&to).unwrap();
    from.send(message).unwrap();
    let mut buffer = vec![0; message.len()];
    match to.recv(&mut buffer) {
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_jumps_computes_and_truncates() {
        let mut program = FilterProgram::default();
        let (second, good) = (program.label(), program.label());
        program.load(Size::Byte, 0);
        program.go_to_if(Test::Equals(7), second);
        program.drop_message();
        program.place(second);
        // The second byte says in words of four where a number is.
        program.load(Size::Byte, 1);
        program.mask(0x0f);
        program.multiply(4);
        program.set_index(1);
        program.advance_index();
        program.load_behind_index(Size::Half, 1);
        program.go_to_if(Test::Above(0x0102), good);
        program.drop_message();
        program.place(good);
        program.accept(3);
        assert_eq!(run(&program, &[7, 0xf1, 0, 0, 0, 0, 1, 3]), Some(vec![7, 0xf1, 0]));
        assert_eq!(run(&program, &[8, 0xf1, 0, 0, 0, 0, 1, 3]), None, "another first byte");
        assert_eq!(run(&program, &[7, 0xf1, 0, 0, 0, 0, 1, 2]), None, "not above");
        assert_eq!(run(&program, &[7, 0xf1, 0, 0, 0, 0, 1]), None, "truncated");
    }

    #[test]
    fn a_jump_that_leads_nowhere_or_back_is_refused() {
        let mut nowhere = FilterProgram::default();
        let label = nowhere.label();
        nowhere.go_to(label);
        nowhere.accept(1);
        assert!(nowhere.assemble().is_none());
        let mut back = FilterProgram::default();
        let label = back.label();
        back.place(label);
        back.go_to_if(Test::HasBits(1), label);
        back.accept(1);
        assert!(back.assemble().is_none());
    }
}
