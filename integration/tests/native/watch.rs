//! `vlan-bridgectl status --watch`: the screen in a terminal, and the text without one.

use integration::{Agent, Background, Ctl, Pod, Site, TerminalProgram, poll, writes};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A node with a list, and its pods.
struct WatchedNode<'a> {
    site: &'a Site,
    ctl: Ctl<'a>,
    list: Value,
}

impl<'a> WatchedNode<'a> {
    fn new(site: &'a Site) -> WatchedNode<'a> {
        let (ctl, list) = (Ctl::new(&site.node), site.list());
        ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
        WatchedNode { site, ctl, list }
    }

    /// Attaches a pod with this name. Returns the name of its port.
    fn attach(&self, pod: &Pod, name: &str) -> String {
        let named = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
        let result = self.site.node.plugin(&self.list).add(&pod.eth0().args(&named)).result();
        result.host_interface().to_owned()
    }

    /// The screen, with an interval of a second.
    fn screen(&self, words: &str, lines: u16) -> TerminalProgram {
        let mut command = self.ctl.command(&format!("status --watch --interval 1 {words}"));
        command.env("LANG", "C.UTF-8");
        TerminalProgram::start(command, 80, lines)
    }
}

#[test]
fn the_screen_shows_the_node_as_it_changes_and_q_ends_it() {
    let (site, pods) = (Site::new(), [Pod::new(), Pod::new()]);
    let node = WatchedNode::new(&site);
    let port = node.attach(&pods[0], "web-0\u{1b}[2J\u{9b}");
    let mut screen = node.screen("", 24);
    let lines = screen.await_text("shop/web-0");
    for part in [
        ", every 1 s",
        "UPLINK   nic0 up, MTU 1500",
        "NETWORK  vlan136, bridge br136 up, port nic0 up, MTU 1500",
        "█░░░░░░░░░░░░░░░░░░░ 1 of 16  172.20.56.16-172.20.56.31",
        "AGENT    none runs",
        "EVENTS   none: vlan-bridgectl agent would report them here",
        "PODS     1",
        "shop/web-0\\u001b[2J\\u009b",
        "q ends",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is not in\n{lines:#?}");
    }
    node.attach(&pods[1], "web-1");
    screen.await_text("shop/web-1");
    site.node.ip(&format!("link set {port} down"));
    screen.await_text("PODS     2, 1 not up");

    let agent = Agent::start(&node.ctl, "");
    screen.await_text("has looked at the node for the first time");
    agent.await_report("it was down");
    screen.await_text("s restored ");
    drop(agent);
    screen.await_text("AGENT    none runs");
    screen.press("q");
    screen.expect_end();
}

#[test]
fn a_smaller_terminal_is_filled_and_keys_scroll() {
    let (site, pods) = (Site::new(), [(); 6].map(|()| Pod::new()));
    let node = WatchedNode::new(&site);
    for (number, pod) in pods.iter().enumerate() {
        node.attach(pod, &format!("web-{number}"));
    }
    let mut screen = node.screen("", 24);
    assert!(!screen.await_text("shop/web-5").iter().any(|line| line.contains("scroll")));
    screen.resize(40, 8);
    let lines = screen.await_text("1-7 of ");
    assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("172.20.56.21")), "{lines:#?}");
    screen.press("\u{1b}[F");
    let lines = screen.await_text("172.20.56.21");
    assert!(!lines.iter().any(|line| line.contains("UPLINK")), "{lines:#?}");
    screen.press("g");
    screen.await_text("UPLINK");
    screen.press("\u{3}");
    screen.expect_end();
}

#[test]
fn signals_restore_the_terminal() {
    let site = Site::new();
    let node = WatchedNode::new(&site);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let screen = node.screen("", 24);
        screen.await_text("PODS     0");
        assert!(screen.screen().is_other());
        screen.signal(signal);
        screen.expect_end();
    }
}

#[test]
fn a_screen_on_a_terminal_that_is_stopped_obeys_keys_and_signals() {
    let site = Site::new();
    let node = WatchedNode::new(&site);
    let stopped = || {
        let screen = node.screen("", 24);
        screen.await_text("PODS     0");
        screen.stop_output();
        screen
    };
    for key in ["q", "\u{3}"] {
        let mut screen = stopped();
        screen.press(key);
        screen.expect_end_while_stopped();
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let screen = stopped();
        screen.signal(signal);
        screen.expect_end_while_stopped();
    }
}

#[test]
fn colours_are_switched_off_by_flag_and_environment() {
    let site = Site::new();
    let node = WatchedNode::new(&site);
    let has_colour = |words: &str, no_color: &str| {
        let mut command = node.ctl.command(&format!("status --watch {words}"));
        let screen = TerminalProgram::start(
            {
                command.env("NO_COLOR", no_color);
                command
            },
            80,
            24,
        );
        screen.await_text("PODS     0");
        screen.screen().has_colour()
    };
    let seen = [("", ""), ("", "1"), ("--color never", ""), ("--color always", "1")]
        .map(|(words, no_color)| has_colour(words, no_color));
    assert_eq!(seen, [true, false, false, true]);
}

/// The tool with its stdout in a pipe.
fn piped(node: &WatchedNode<'_>, words: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = node.ctl.command(&format!("status --watch -n 1 {words}"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let reader = BufReader::new(child.stdout.take().unwrap());
    (child, reader)
}

#[test]
fn without_a_terminal_each_change_is_printed_until_nobody_reads() {
    let (site, pod) = (Site::new(), Pod::new());
    let node = WatchedNode::new(&site);
    let (mut child, mut reader) = piped(&node, "-o json");
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["pods"].clone()
    };
    assert_eq!(next(), serde_json::json!([]));
    node.attach(&pod, "web-0");
    assert_eq!(next()[0]["pod"], "shop/web-0");
    // Nothing changes any more, so only the end of the pipe can end it.
    drop(reader);
    poll(SOON, "the end of the tool", || child.try_wait().unwrap().is_some());

    let (mut child, mut reader) = piped(&node, "");
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.starts_with("---- ") && first.ends_with(" UTC\n"), "{first}");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("UPLINK   nic0: up, MTU 1500\n") && rest.contains("shop/web-0"), "{rest}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_signal_ends_it_while_nobody_reads() {
    let site = Site::new();
    let node = WatchedNode::new(&site);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let (_reader, mut writer) = std::io::pipe().unwrap();
        let mut flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
        let stdout = writer.try_clone().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
        while writer.write(&[b' '; 4096]).is_ok() {}
        flags.remove(OFlag::O_NONBLOCK);
        fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
        let mut command = node.ctl.command("status --watch -n 1");
        let mut tool = Background::start(command.stdin(Stdio::null()).stdout(stdout));
        poll(SOON, "a write that does not end", || writes(tool.pid()));
        kill(Pid::from_raw(tool.pid().try_into().unwrap()), signal).unwrap();
        poll(SOON, "the end of the tool", || !tool.is_alive());
    }
}
