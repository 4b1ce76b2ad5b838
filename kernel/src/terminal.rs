//! The terminal of a program that redraws its whole screen (termios(3), console_codes(4)).

mod output;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Mutex;
use std::time::Duration;

use cni_skel::terminal_output;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{
    InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
pub use output::OutputThread;

/// The other screen, without a cursor, and without a line that goes on in the next one.
const BEGIN: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const END: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";
/// How long a program that ends waits for a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is restored at the end. A panic ends the program without a destructor.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

/// What restores a terminal.
struct Before {
    settings: Termios,
    output: OutputThread,
}

/// A terminal that shows another screen until the value is dropped.
#[derive(Debug)]
pub struct Terminal {
    output: OutputThread,
}

impl Terminal {
    /// Switches the terminal of stdin and stdout to the other screen, and reads keys as they are pressed.
    /// Signals that are to be read have to be blocked before.
    ///
    /// # Errors
    /// Stdin is no terminal.
    pub fn open() -> io::Result<Terminal> {
        let settings = tcgetattr(io::stdin())?;
        let output = OutputThread::start()?;
        let mut now = settings.clone();
        now.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
        // Nothing else would show that the output is stopped.
        now.input_flags -= InputFlags::IXON;
        // Ctrl-C ends the program. Nothing stops it or makes it dump core on the other screen.
        for key in [SpecialCharacterIndices::VSUSP, SpecialCharacterIndices::VQUIT] {
            now.control_chars[key as usize] = libc::_POSIX_VDISABLE;
        }
        let before = Before { settings, output: output.clone() };
        *BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before);
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            earlier(panic);
        }));
        tcsetattr(io::stdin(), SetArg::TCSANOW, &now)?;
        let terminal = Terminal { output };
        terminal.output.append(BEGIN)?;
        terminal.output.finish(PATIENCE)?;
        Ok(terminal)
    }

    /// Shows a frame, or keeps it until the terminal takes it. A frame that still waits is dropped.
    ///
    /// # Errors
    /// It is gone.
    pub fn show(&self, frame: &[u8]) -> io::Result<()> {
        self.output.replace(frame)
    }

    /// Its columns and lines. 80 and 24 if it does not know.
    pub fn size(&self) -> (usize, usize) {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel writes a winsize there, which lives until the call returns.
        let answer = unsafe { libc::ioctl(terminal_output().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        match answer {
            0 if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(Before { settings, output }) = before {
        // A terminal that is gone needs nothing. One that takes nothing keeps the other screen.
        let _ = output.append(END).and_then(|()| output.finish(PATIENCE));
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &settings);
    }
}

/// Whether stdin and stdout are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && terminal_output().is_terminal()
}

/// Something that a program with a screen waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScreenEvent {
    /// The bytes of a key, or of several.
    Keys(Vec<u8>),
    /// The terminal has another size.
    Resized,
    /// The time is over.
    Time,
    /// SIGINT, SIGTERM or SIGHUP, or nobody reads stdout any more.
    End,
}

/// Waits for keys and signals.
#[derive(Debug)]
pub struct ScreenEvents {
    signals: SignalFd,
    reads_keys: bool,
}

impl ScreenEvents {
    /// Blocks the signals for the calling thread. Reads stdin if `reads_keys`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(reads_keys: bool) -> io::Result<ScreenEvents> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(ScreenEvents { signals, reads_keys })
    }

    /// Waits for the next event, for this long at most.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn next(&self, limit: Duration) -> io::Result<ScreenEvent> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let (stdin, out) = (io::stdin(), terminal_output());
        // An error of stdout is always told. Nothing else of it is.
        let mut waiting =
            vec![of(self.signals.as_fd(), PollFlags::POLLIN), of(out.as_fd(), PollFlags::empty())];
        if self.reads_keys {
            waiting.push(of(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, limit) {
            Err(Errno::EINTR) => return Ok(ScreenEvent::Resized),
            Ok(0) => return Ok(ScreenEvent::Time),
            answer => answer?,
        };
        let is_ready = |place: usize| waiting.get(place).is_some_and(|waited| waited.any().unwrap_or(false));
        if is_ready(1) {
            return Ok(ScreenEvent::End);
        }
        if is_ready(0) {
            let signal = self.signals.read_signal()?;
            let is_resize = |number| i32::try_from(number) == Ok(Signal::SIGWINCH as i32);
            return Ok(match signal {
                Some(signal) if !is_resize(signal.ssi_signo) => ScreenEvent::End,
                _ => ScreenEvent::Resized,
            });
        }
        let mut keys = [0; 64];
        // Not by the buffer of stdin, which would keep keys of which poll(2) knows nothing.
        match nix::unistd::read(stdin.as_fd(), &mut keys) {
            Err(Errno::EINTR) => Ok(ScreenEvent::Resized),
            // The other end of the terminal is closed.
            Ok(0) | Err(_) => Ok(ScreenEvent::End),
            Ok(count) => Ok(ScreenEvent::Keys(keys[..count].to_vec())),
        }
    }
}

fn of(descriptor: BorrowedFd<'_>, flags: PollFlags) -> PollFd<'_> {
    PollFd::new(descriptor, flags)
}
