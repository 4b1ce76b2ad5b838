//! A program that runs in a terminal of its own.

use crate::{Background, TerminalScreen, poll, writes};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{FlowArg, Termios, tcflow, tcgetattr};
use nix::unistd::{Pid, setsid};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The time limit for a program to show or do something.
const SHOWN: Duration = Duration::from_secs(30);

/// The program. It is killed when the value is dropped.
#[derive(Debug)]
pub struct TerminalProgram {
    master: File,
    process: Background,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
    size: (u16, u16),
}

impl TerminalProgram {
    /// Starts it in a terminal with these columns and lines.
    #[track_caller]
    pub fn start(mut command: Command, columns: u16, lines: u16) -> TerminalProgram {
        let pty = openpty(&window(columns, lines), None).expect("the kernel has terminals");
        let before = tcgetattr(&pty.slave).expect("a terminal has settings");
        for stream in [Command::stdin, Command::stdout, Command::stderr] {
            stream(&mut command, pty.slave.try_clone().expect("a descriptor can be cloned"));
        }
        command.env("TERM", "xterm-256color");
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let process = Background::start(&mut command);
        // The command has the terminal open too.
        drop(command);
        drop(pty.slave);
        let master = File::from(pty.master);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, store) = (master.try_clone().expect("a descriptor can be cloned"), written.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO means that nobody has the terminal open any more.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                store.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
            }
        });
        TerminalProgram { master, process, before, written, size: (columns, lines) }
    }

    /// What the terminal shows.
    pub fn screen(&self) -> TerminalScreen {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        TerminalScreen::after(&written, self.size.0.into(), self.size.1.into())
    }

    /// Waits until the screen shows some words. Returns the lines.
    #[track_caller]
    pub fn await_text(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        poll(SHOWN, &format!("{text:?} on the screen"), || {
            lines = self.screen().lines();
            lines.iter().any(|line| line.contains(text))
        });
        lines
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Gives the terminal another size. What was shown is forgotten, as nobody knows where it is.
    pub fn resize(&mut self, columns: u16, lines: u16) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.size = (columns, lines);
        let size = window(columns, lines);
        // SAFETY: the kernel reads a winsize, which lives until the call returns.
        let answer = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(answer, 0, "a terminal can be resized");
    }

    /// Stops the terminal's output, as Ctrl-S does, and waits until the program cannot write.
    #[track_caller]
    pub fn stop_output(&self) {
        let terminal = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(format!("/proc/{}/fd/1", self.process.pid()))
            .expect("the program's stdout is a terminal");
        tcflow(&terminal, FlowArg::TCOOFF).expect("a terminal can be stopped");
        poll(SHOWN, "a write that does not end", || writes(self.process.pid()));
    }

    /// Waits for the end of a program whose output is stopped. The terminal's settings are as before.
    #[track_caller]
    pub fn expect_end_while_stopped(mut self) {
        poll(SHOWN, "the end of the program", || !self.process.is_alive());
        let after = tcgetattr(&self.master).expect("a terminal has settings");
        assert_eq!(after, self.before, "the settings of the terminal");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.process.pid().try_into().expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("the program runs");
    }

    /// Waits for its end. The terminal is then as it was before.
    #[track_caller]
    pub fn expect_end(mut self) {
        poll(SHOWN, "the end of the program", || !self.process.is_alive());
        poll(SHOWN, "the screen before", || !self.screen().is_other());
        let after = tcgetattr(&self.master).expect("a terminal has settings");
        assert_eq!(after, self.before, "the settings of the terminal");
    }
}

fn window(columns: u16, lines: u16) -> libc::winsize {
    libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
