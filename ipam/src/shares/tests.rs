//! Tests of what pods get out of grants, each with its own store.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use serde_json::json;
use vlan_bridge_pool::name::Name;

use super::*;
use crate::poke::{Question, Reply};
use crate::tests::Node;

const NETWORK: &str = "vlan136";

fn ip(last: u8) -> IpAddr {
    [172, 20, 56, last].into()
}

fn ips(all: impl IntoIterator<Item = u8>) -> Runs {
    all.into_iter().map(ip).collect()
}

/// A node of a shared pool, with sixteen home addresses.
fn node() -> Node {
    Node::new(json!({"subnet": "172.20.56.0/24", "slice": "172.20.56.16/28", "gateway": "172.20.56.1",
        "pool": {"etcd": {"endpoints": ["http://127.0.0.1:1"]}, "wait": 0}}))
}

/// What an agent does.
struct Agent {
    config: IpamConfig,
    generation: u64,
}

impl Agent {
    fn of(node: &Node) -> Agent {
        let mut config = json!({"name": NETWORK, "ipam": node.ipam});
        config["ipam"]["dataDir"] = node.dir.to_str().unwrap().into();
        Agent { config: IpamConfig::parse(config.as_object().unwrap()).unwrap(), generation: 0 }
    }

    fn share(&self) -> PoolShare<'_> {
        PoolShare::all(&self.config, NETWORK).next().unwrap()
    }

    fn grants(&self, home: Runs, leased: Runs, unproven: Runs) -> Grants {
        let name = |name: &str| Name::new(name).unwrap();
        Grants {
            pool: name("vlan136"),
            pool_id: "00112233445566778899aabbccddeeff".into(),
            node: name("n1"),
            network: name(NETWORK),
            epoch: 3,
            restored: 0,
            generation: self.generation,
            home,
            leased,
            unproven,
            blocks: [BlockKey::of(ip(0))].into(),
        }
    }

    /// Stores grants, and tells the store of addresses.
    fn grant(&mut self, home: Runs, leased: Runs) {
        self.generation += 1;
        self.share().store_grants(&self.grants(home, leased, Runs::EMPTY)).unwrap();
        self.share().offer().unwrap();
    }

    /// How many addresses the tables offer.
    fn queued(&self) -> u32 {
        let mut store = Store::create(&self.config.data_dir, NETWORK).unwrap();
        let queued = store.queued(&self.share().pool).unwrap();
        store.finish();
        queued
    }

    fn confirm(&self) {
        let Moment { boot, uptime, clock } = moment();
        let confirmation =
            Confirmation { epoch: 3, boot, sent_at: uptime, sent_at_clock: clock, give_for: None };
        self.share().confirm(&confirmation).unwrap();
    }
}

fn last_of(added: Result<Vec<String>, CniError>) -> Result<u8, String> {
    let added = added.map_err(|error| error.msg)?;
    let [address] = &added[..] else { panic!("{added:?}") };
    Ok(address.trim_start_matches("172.20.56.").trim_end_matches("/24").parse().unwrap())
}

/// All addresses that a node gives until it has none, sorted.
fn given(node: &Node, prefix: &str) -> Vec<u8> {
    let mut given: Vec<u8> = (0..).map_while(|i| last_of(node.add(&format!("{prefix}{i}"))).ok()).collect();
    given.sort_unstable();
    given
}

#[test]
fn without_grants_home_addresses_are_given_and_no_others() {
    let node = node();
    assert_eq!(given(&node, "c"), (16..32).collect::<Vec<_>>());
    let full = node.add("one-more").unwrap_err();
    assert_eq!(full.code, code::TRY_AGAIN_LATER);
    let usage =
        "172.20.56.0/24: 16 used, 0 cooling, 0 quarantined of 16 home, and the agent has granted nothing yet";
    assert!(full.msg.contains(usage), "{}", full.msg);
}

#[test]
fn leased_addresses_are_given_while_they_are_confirmed() {
    let node = node();
    let mut agent = Agent::of(&node);
    agent.grant(ips([16, 17]), ips([200, 201]));
    assert_eq!(given(&node, "c"), [16, 17]);
    let error = node.add("d").unwrap_err().msg;
    let usage =
        "2 used, 0 cooling, 0 quarantined of 4 granted (2 home, 2 leased, 2 not confirmed by the store)";
    assert!(error.contains(usage), "{error}");
    agent.confirm();
    assert_eq!(given(&node, "d"), [200, 201]);
    agent.share().withdraw().unwrap();
    node.call("DEL", "d0").unwrap();
    assert!(node.add("e").is_err());
    let Moment { uptime, clock, .. } = moment();
    let other = Confirmation {
        epoch: 3,
        boot: "6a1f0c6e-54f1-4b5c-9f0e-2f6f6d1b8c11".into(),
        sent_at: uptime,
        sent_at_clock: clock,
        give_for: None,
    };
    agent.share().confirm(&other).unwrap();
    assert!(node.add("e").is_err(), "a confirmation of another boot");
    agent.confirm();
    assert!(node.add("e").is_ok());
}

#[test]
fn grants_decide_and_not_the_configuration() {
    let mut node = node();
    let mut agent = Agent::of(&node);
    agent.grant(ips((16..32).filter(|last| *last != 20)), Runs::EMPTY);
    node.ipam.as_object_mut().unwrap().remove("pool");
    let given = given(&node, "c");
    assert_eq!(given, (16..32).filter(|last| *last != 20).collect::<Vec<_>>());
    assert!(node.add_with("d", "IP=172.20.56.20").is_err(), "a home address that is lent");
}

#[test]
fn what_leaves_the_grants_is_not_offered_and_comes_back() {
    let node = node();
    let mut agent = Agent::of(&node);
    agent.grant(ips([16, 17, 18]), Runs::EMPTY);
    assert_eq!(last_of(node.add("c1")), Ok(16));
    assert_eq!(last_of(node.add("c2")), Ok(17));
    agent.generation += 1;
    agent.share().store_grants(&agent.grants(ips([17]), Runs::EMPTY, Runs::EMPTY)).unwrap();
    let in_use = agent.share().inspect(BlockKey::of(ip(16))).unwrap();
    assert_eq!(in_use, ips([16]), "the pod that has it keeps it");
    node.call("DEL", "c1").unwrap();
    assert_eq!(agent.queued(), 0, "it does not go back to the stock");
    assert_eq!(agent.share().inspect(BlockKey::of(ip(16))).unwrap(), Runs::EMPTY);
    assert!(node.add("c3").is_err());
    node.call("DEL", "c2").unwrap();
    assert_eq!(last_of(node.add("c3")), Ok(17));
    agent.grant(ips([16, 17]), Runs::EMPTY);
    assert_eq!(last_of(node.add("c4")), Ok(16));
    assert!(node.add("c5").is_err());
}

#[test]
fn grants_that_no_agent_announced_hold_as_well() {
    let node = node();
    let mut agent = Agent::of(&node);
    agent.grant(ips([16, 17]), Runs::EMPTY);
    assert_eq!(last_of(node.add("c1")), Ok(16));
    // An agent that was killed before it told the store of addresses.
    agent.generation += 1;
    agent.share().store_grants(&agent.grants(ips([16, 18]), Runs::EMPTY, Runs::EMPTY)).unwrap();
    assert_eq!(last_of(node.add("c2")), Ok(18));
    assert!(node.add("c3").is_err());
}

#[test]
fn a_file_that_cannot_be_read_gives_nothing() {
    let node = node();
    let mut agent = Agent::of(&node);
    agent.grant(ips([16, 17]), Runs::EMPTY);
    assert_eq!(last_of(node.add("c1")), Ok(16));
    let path = node.dir.join(".vlan-bridge/vlan136/grants");
    let whole = fs::read_to_string(&path).unwrap();
    let broken = [
        (&whole[..whole.len() / 2], "not JSON"),
        ("", "not JSON"),
        (&whole.replace("56.17", "56.19"), "the checksum of the rest"),
    ];
    for (content, why) in broken {
        fs::write(&path, content).unwrap();
        let error = node.add("c2").unwrap_err();
        assert_eq!(error.code, code::IO_FAILURE);
        assert!(error.msg.contains("vlan136/grants: ") && error.msg.contains(why), "{}", error.msg);
        assert!(agent.share().grants().is_err());
    }
    node.call("DEL", "c1").unwrap();
    fs::write(&path, whole).unwrap();
    assert_eq!(given(&node, "d"), [16, 17]);
}

#[test]
fn unproven_addresses_are_not_given_without_a_probe() {
    let node = node();
    let agent = Agent::of(&node);
    agent.share().store_grants(&agent.grants(ips([16]), ips([200, 201]), ips([200]))).unwrap();
    agent.confirm();
    assert_eq!(given(&node, "c"), [16, 201]);
    let error = node.add("d").unwrap_err().msg;
    assert!(error.contains("of 3 granted (1 home, 2 leased, 1 not given without a probe)"), "{error}");
}

#[test]
fn the_report_counts_what_is_granted() {
    let node = node();
    let mut agent = Agent::of(&node);
    let usage = |agent: &Agent| {
        let report = agent.share().report(3).unwrap();
        (report.usage.idle, report.usage.used, report.usage.waiting)
    };
    assert_eq!(usage(&agent), (0, 0, 3), "nothing is granted yet");
    agent.grant(ips([16, 17]), ips([200, 1, 201]));
    assert_eq!(usage(&agent), (4, 0, 3), "the gateway is never given");
    agent.confirm();
    assert_eq!(last_of(node.add("c1")), Ok(16));
    assert_eq!(usage(&agent), (3, 1, 3));
    let rested = agent.share().report(0).unwrap().rested;
    assert_eq!(rested, ips([17]).iter().collect::<Vec<_>>(), "what has just been leased stays for a while");
    agent.share().store_grants(&agent.grants(ips([17]), ips([200]), Runs::EMPTY)).unwrap();
    assert_eq!(usage(&agent), (2, 0, 3), "a pod has an address that is granted no more");
    assert_eq!(agent.share().slice(), ips(16..32));
}

#[test]
fn each_set_has_its_own_grants() {
    let node =
        Node::new(json!({"pool": {"etcd": {"endpoints": ["http://127.0.0.1:1"]}, "wait": 0}, "ranges":
        [[{"subnet": "172.20.56.0/24"}], [{"subnet": "2001:db8::/112", "rangeEnd": "2001:db8::3"}]]}));
    let mut agent = Agent::of(&node);
    assert!(node.add("c1").unwrap_err().msg.contains("172.20.56.0/24: 0 used"));
    agent.grant(ips([200]), Runs::EMPTY);
    assert_eq!(node.add("c1"), Ok(vec!["172.20.56.200/24".into(), "2001:db8::2/112".into()]));
    let second = PoolShare::all(&agent.config, NETWORK).nth(1).unwrap();
    assert_eq!(second.holder(), "vlan136.1");
    let other = Grants {
        network: Name::new("vlan136.1").unwrap(),
        ..agent.grants(
            ["2001:db8::9".parse::<IpAddr>().unwrap()].into_iter().collect(),
            Runs::EMPTY,
            Runs::EMPTY,
        )
    };
    second.store_grants(&other).unwrap();
    node.call("DEL", "c1").unwrap();
    assert_eq!(node.add("c2"), Ok(vec!["172.20.56.200/24".into(), "2001:db8::9/112".into()]));
    assert!(node.add("c3").is_err());
    fs::copy(node.dir.join(".vlan-bridge/vlan136/grants"), node.dir.join(".vlan-bridge/vlan136/grants.1"))
        .unwrap();
    let error = node.add("c3").unwrap_err().msg;
    assert!(error.contains("grants.1: it is of network vlan136."), "{error}");
}

#[test]
fn the_identity_is_read_as_it_was_written() {
    let node = node();
    assert_eq!(identity(&node.dir).unwrap(), None);
    let drawn = Identity { instance: "00112233445566778899aabbccddeeff".into(), since: 1, epoch: 2, seq: 3 };
    save_identity(&node.dir, &drawn).unwrap();
    assert_eq!(identity(&node.dir).unwrap().as_ref(), Some(&drawn));
    fs::write(node.dir.join(".vlan-bridge/.pool-identity"), "{").unwrap();
    assert!(identity(&node.dir).unwrap_err().to_string().contains(".pool-identity"));
}

/// Answers the first question on the agent's socket by `answer`.
fn listen(
    agent: Agent,
    answer: impl FnOnce(Agent, Question, &mut UnixStream) + Send + 'static,
) -> JoinHandle<()> {
    fs::create_dir_all(agent.config.data_dir.join(".vlan-bridge")).unwrap();
    let listener = UnixListener::bind(socket(&agent.config.data_dir)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        answer(agent, Question::parse(line.as_bytes()).unwrap(), &mut stream);
        // Until the ADD hangs up.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

fn say(stream: &mut UnixStream, reply: Reply) {
    stream.write_all(reply.to_line().as_bytes()).unwrap();
}

/// How long an ADD waits for an agent that answers at once.
fn waited() -> Duration {
    let mut node = node();
    node.ipam["pool"]["wait"] = 30.into();
    let mut agent = Agent::of(&node);
    agent.grant(ips([16]), Runs::EMPTY);
    assert_eq!(last_of(node.add("c1")), Ok(16));
    let answering = listen(agent, |mut agent, question, stream| {
        let sets = vec![0];
        let expected = Question { network: NETWORK.into(), wait: true, sets, addresses: Vec::new() };
        assert_eq!(question, expected);
        say(stream, Reply::Dry("pool vlan136: nothing is free".into()));
        say(stream, Reply::Look);
        agent.grant(ips([16]), ips([200]));
        agent.confirm();
        say(stream, Reply::Look);
    });
    let began = Instant::now();
    assert_eq!(last_of(node.add("c2")), Ok(200));
    let waited = began.elapsed();
    answering.join().unwrap();
    waited
}

#[test]
fn a_dry_add_waits_for_the_agent_and_no_longer() {
    // A busy machine may be slow once. Unless the agent tells it to, an ADD looks again after a second.
    let shortest = (0..5).map(|_| waited()).min().unwrap();
    assert!(shortest < Duration::from_millis(900), "{shortest:?}");
}

#[test]
fn a_requested_address_that_is_not_granted_is_asked_for() {
    let mut node = node();
    node.ipam["pool"]["wait"] = 30.into();
    let answering = listen(Agent::of(&node), |mut agent, question, stream| {
        assert_eq!((question.sets, question.addresses), (vec![], vec![ip(77)]));
        agent.grant(ips([16]), ips([77]));
        agent.confirm();
        say(stream, Reply::Look);
    });
    assert_eq!(last_of(node.add_with("c1", "IP=172.20.56.77")), Ok(77));
    answering.join().unwrap();
}

#[test]
fn the_error_of_a_dry_add_has_the_words_of_the_agent() {
    let mut node = node();
    node.ipam["pool"]["wait"] = 1.into();
    let mut agent = Agent::of(&node);
    agent.grant(ips([16]), Runs::EMPTY);
    assert_eq!(last_of(node.add("c1")), Ok(16));
    let absent = node.add("c2").unwrap_err();
    assert_eq!(absent.code, code::TRY_AGAIN_LATER);
    let words = format!("; the agent does not run ({}: ", socket(&node.dir).display());
    assert!(absent.msg.contains(&words), "{}", absent.msg);
    let answering = listen(agent, |_, _, stream| {
        say(stream, Reply::Dry("pool vlan136: 240 of 240 granted".into()));
    });
    let began = Instant::now();
    let dry = node.add("c2").unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(dry.msg.starts_with("no free address in network vlan136: 172.20.56.0/24: 1 used"), "{}", dry.msg);
    assert!(dry.msg.ends_with("; the agent says: pool vlan136: 240 of 240 granted"), "{}", dry.msg);
    answering.join().unwrap();
}

#[test]
fn the_agent_hears_that_the_stock_is_low_and_nobody_waits_for_it() {
    let node = node();
    let mut agent = Agent::of(&node);
    agent.grant(ips(16..22), Runs::EMPTY);
    fs::create_dir_all(agent.config.data_dir.join(".vlan-bridge")).unwrap();
    let listener = UnixListener::bind(socket(&node.dir)).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(node.add("c1").is_ok());
    assert!(listener.accept().is_err(), "five are left");
    assert!(node.add("c2").is_ok());
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let question = Question::parse(line.as_bytes()).unwrap();
    assert_eq!(
        question,
        Question { network: NETWORK.into(), wait: false, sets: vec![0], addresses: Vec::new() }
    );
}
