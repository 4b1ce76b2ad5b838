//! How our plugin handles any behaviour of an IPAM plugin. Small scripts play the IPAM plugin.

use integration::{Call, Outcome, Pod, Scratch, Site, Snapshot, peers, product};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A site whose IPAM plugin, `fake`, is a shell script in a folder of its own.
struct Delegated {
    site: Site,
    pod: Pod,
    folder: Scratch,
}

impl Delegated {
    /// For ADD, the script notes the verb and runs `on_add`. Every other verb succeeds.
    fn new(on_add: &str) -> Delegated {
        let delegated = Delegated { site: Site::new(), pod: Pod::new(), folder: Scratch::new("bin") };
        let path = delegated.folder.path().join("fake");
        let here = delegated.folder.path().display();
        let script = format!(
            "#!/bin/sh\ncd {here}\necho $CNI_COMMAND >> calls\n[ $CNI_COMMAND = ADD ] || exit 0\n{on_add}\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        delegated
    }

    fn call(&self, verb: &str, version: &str) -> Call<'_> {
        let plugin = self.site.node.plugin(&self.site.list()).with("cniVersion", json!(version));
        let plugin = plugin.with("ipam", json!({"type": "fake", "own": ["key"]}));
        let path =
            [self.folder.path(), &product(), &peers()].map(|folder| folder.display().to_string()).join(":");
        plugin.call(verb, &self.pod.eth0()).env("CNI_PATH", path)
    }

    fn add(&self, version: &str) -> Outcome {
        self.call("ADD", version).run()
    }

    /// The verbs that the script was called with.
    fn calls(&self) -> Vec<String> {
        self.noted("calls").lines().map(str::to_owned).collect()
    }

    fn noted(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

const ADDRESS: &str = r#"{"address": "172.20.56.20/24", "gateway": "172.20.56.1"}"#;

#[test]
fn an_ipam_plugin_that_fails_is_quoted_and_called_to_clean_up() {
    let documents = [
        // The code and the message are passed on unchanged.
        (
            r#"echo '{"cniVersion": "1.1.0", "code": 42, "msg": "No more. Ask Bob", "details": "d"}'; exit 1"#,
            42,
            "No more. Ask Bob: d",
        ),
        (r#"echo '{"code": 11, "msg": "later"}'; exit 7"#, 11, "later: "),
        // It prints no error document.
        ("exit 3", 103, "exit status: 3"),
        ("echo oops; exit 1", 103, "oops"),
        ("kill -9 $$", 103, "signal: 9"),
        // It succeeds without a usable result.
        ("exit 0", 103, "fake"),
        ("echo oops", 103, "fake"),
        (r#"echo '{"cniVersion": "1.1.0"}'"#, 103, "no address"),
        (r#"echo '{"cniVersion": "9.9.9", "ips": []}'"#, 1, "9.9.9"),
        (
            r#"echo '{"cniVersion": "1.1.0", "ips": [{"address": "172.20.56.300/24"}]}'"#,
            6,
            "172.20.56.300/24",
        ),
        (
            r#"echo '{"cniVersion": "1.1.0", "ips": [{"address": "172.20.56.20/24"}], "routes": [{"dst": "x"}]}'"#,
            6,
            "routes[0].dst",
        ),
        // The kernel refuses it.
        (
            r#"echo '{"cniVersion": "1.1.0", "ips": [{"address": "172.20.56.20/24", "gateway": "172.20.56.1"}], "routes": [{"dst": "10.0.0.0/8", "gw": "224.0.0.1"}]}'"#,
            102,
            "10.0.0.0/8",
        ),
    ];
    for (script, code, message) in documents {
        let delegated = Delegated::new(script);
        let before = Snapshot::of(&delegated.pod);
        let outcome = delegated.add("1.1.0");
        assert_eq!(outcome.error_code(), code, "{script}: {outcome}");
        let text = outcome.error_text();
        if code < 100 && code != 6 && code != 1 {
            assert_eq!(text, message, "{script}");
        } else {
            assert!(text.contains(message), "{script}: {outcome}");
        }
        assert_eq!(delegated.calls(), ["ADD", "DEL"], "{script}");
        before.assert_unchanged(&delegated.pod);
        let left = delegated.site.node.ip_json("link show type veth");
        let names: Vec<_> = left.as_array().unwrap().iter().map(|link| &link["ifname"]).collect();
        assert_eq!(names, ["nic0"], "{script}");
    }
}

#[test]
fn an_ipam_plugin_that_is_not_there_is_found_out_before_anything_is_touched() {
    let site = Site::new();
    let pod = Pod::new();
    let before = (Snapshot::of(&site.node), Snapshot::of(&pod));
    let plugin = site.node.plugin(&site.list()).with("ipam", json!({"type": "no-such-ipam"}));
    for verb in ["ADD", "CHECK"] {
        let outcome =
            plugin.clone().with("prevResult", json!({"cniVersion": "1.1.0"})).call(verb, &pod.eth0()).run();
        if verb == "ADD" {
            assert_eq!(outcome.error_code(), 103, "{outcome}");
            let text = outcome.error_text();
            assert!(text.contains("no-such-ipam") && text.contains(&*product().to_string_lossy()), "{text}");
        } else {
            assert!(!outcome.ok());
        }
        before.0.assert_unchanged(&site.node);
        before.1.assert_unchanged(&pod);
    }
}

#[test]
fn a_result_without_a_version_is_in_the_configurations() {
    let newer = format!(r#"echo '{{"ips": [{ADDRESS}]}}'"#);
    let older = r#"echo '{"ip4": {"ip": "172.20.56.20/24", "gateway": "172.20.56.1"}}'"#;
    for (script, version, address) in [
        (newer.as_str(), "1.1.0", "/ips/0/address"),
        (newer.as_str(), "0.3.1", "/ips/0/address"),
        (older, "0.2.0", "/ip4/ip"),
    ] {
        let delegated = Delegated::new(script);
        let result = delegated.add(version).expect_ok().json();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result.pointer(address), Some(&json!("172.20.56.20/24")), "{version}: {result}");
        assert!(delegated.pod.pings(Site::GATEWAY), "{version}");
    }
}

#[test]
fn a_result_that_an_old_version_cannot_say_leaves_nothing() {
    let other = ADDRESS.replace(".20/", ".21/");
    let delegated =
        Delegated::new(&format!(r#"echo '{{"cniVersion": "1.0.0", "ips": [{ADDRESS}, {other}]}}'"#));
    let before = Snapshot::of(&delegated.pod);
    assert_eq!(delegated.add("0.2.0").error_code(), 2);
    before.assert_unchanged(&delegated.pod);
    assert_eq!(delegated.calls(), ["ADD", "DEL"]);
}

#[test]
fn an_ipam_plugin_gets_the_whole_configuration_the_environment_and_a_finished_interface() {
    let delegated = Delegated::new(&format!(
        "cat > stdin; env > environment; ip -n $(basename $CNI_NETNS) -o link show dev $CNI_IFNAME > interface\n\
         echo complaint >&2; echo '{{\"cniVersion\": \"1.1.0\", \"ips\": [{ADDRESS}]}}'"
    ));
    let call =
        delegated.call("ADD", "1.1.0").env("CNI_ARGS", "IgnoreUnknown=1;FOO=bar").env("ODD_ONE", "kept");
    let outcome = call.run().expect_ok();
    assert!(outcome.stderr.contains("complaint"), "{outcome}");
    assert_eq!(delegated.noted("stdin").as_bytes(), call.input());
    let environment = delegated.noted("environment");
    let eth0 = delegated.pod.eth0();
    for line in [
        "CNI_COMMAND=ADD",
        "CNI_IFNAME=eth0",
        "CNI_ARGS=IgnoreUnknown=1;FOO=bar",
        "ODD_ONE=kept",
        &format!("CNI_CONTAINERID={}", eth0.id),
        &format!("CNI_NETNS={}", delegated.pod.path().display()),
        &format!("CNI_PATH={}", delegated.folder.path().display()),
    ] {
        assert!(
            environment.lines().any(|there| there.starts_with(line)),
            "{line} is missing in\n{environment}"
        );
    }
    let interface = delegated.noted("interface");
    assert!(interface.contains("eth0@") && interface.contains("LOWER_UP"), "dhcp needs it up: {interface}");
    delegated.call("DEL", "1.1.0").run().expect_ok();
    assert_eq!(delegated.calls(), ["ADD", "DEL"]);
}

#[test]
fn an_ipam_plugin_need_not_read_its_stdin() {
    let delegated =
        Delegated::new(&format!("exec <&-; echo '{{\"cniVersion\": \"1.1.0\", \"ips\": [{ADDRESS}]}}'"));
    let call = delegated.call("ADD", "1.1.0");
    // More than a pipe holds.
    let mut conf: serde_json::Value = serde_json::from_slice(call.input()).unwrap();
    conf["args"] = json!({"labels": "x".repeat(1_000_000)});
    call.stdin(conf.to_string()).run().expect_ok();
}

#[test]
fn an_ipam_plugin_is_a_file_that_can_be_executed_in_an_absolute_folder() {
    let delegated = Delegated::new(&format!("echo '{{\"cniVersion\": \"1.1.0\", \"ips\": [{ADDRESS}]}}'"));
    // In the working folder, as a plain file, and as a folder.
    let elsewhere = Scratch::new("elsewhere");
    fs::write(elsewhere.path().join("fake"), "").unwrap();
    fs::create_dir_all(elsewhere.path().join("sub/fake")).unwrap();
    let (there, good) = (elsewhere.path().display(), delegated.folder.path().display());
    let wrapper = format!("cd {good} && exec \"$0\"");
    let add = |path: String| {
        delegated.call("ADD", "1.1.0").env("CNI_PATH", path).run_under(&["sh", "-c", &wrapper])
    };
    let path = format!(":.:{there}:{there}/sub");
    let outcome = add(path.clone());
    assert_eq!(outcome.error_code(), 103, "{outcome}");
    assert!(outcome.error_text().contains(&path), "{outcome}");
    assert!(delegated.calls().is_empty());
    add(format!(":.:{there}:{there}/sub:{good}")).expect_ok();
}

#[test]
fn an_ipam_plugin_may_speak_before_it_listens() {
    let delegated = Delegated::new(&format!(
        "head -c 200000 /dev/zero | tr '\\0' ' '; cat > stdin\n\
         echo '{{\"cniVersion\": \"1.1.0\", \"ips\": [{ADDRESS}]}}'"
    ));
    let call = delegated.call("ADD", "1.1.0");
    // Both are more than a pipe holds.
    let mut conf: serde_json::Value = serde_json::from_slice(call.input()).unwrap();
    conf["args"] = json!({"labels": "x".repeat(300_000)});
    let call = call.stdin(conf.to_string());
    call.run().expect_ok();
    assert_eq!(delegated.noted("stdin").as_bytes(), call.input());
}

#[test]
fn an_ipam_plugin_that_does_not_stop_speaking_is_stopped() {
    let delegated = Delegated::new("trap '' PIPE; while :; do echo 0123456789; done 2> /dev/null");
    let before = Snapshot::of(&delegated.pod);
    let outcome = delegated.add("1.1.0");
    assert_eq!(outcome.error_code(), 103);
    assert!(outcome.error_text().contains("longer than 4194304 bytes"), "{outcome}");
    before.assert_unchanged(&delegated.pod);
    assert_eq!(delegated.calls(), ["ADD", "DEL"]);
}

#[test]
fn every_verb_is_passed_on_and_comes_back_as_it_was_said() {
    let delegated = Delegated::new(&format!(
        "[ -e refuse ] && {{ echo '{{\"code\": 57, \"msg\": \"not now\"}}'; exit 1; }}\n\
         [ $CNI_COMMAND = ADD ] && echo '{{\"cniVersion\": \"1.1.0\", \"ips\": [{ADDRESS}]}}'; true"
    ));
    let script = delegated.folder.path().join("fake");
    // Here every verb does what ADD does.
    let text = fs::read_to_string(&script).unwrap().replace("[ $CNI_COMMAND = ADD ] || exit 0\n", "");
    fs::write(&script, text).unwrap();
    let result = delegated.add("1.1.0").result();
    let call = |verb: &str| {
        let call = delegated.call(verb, "1.1.0");
        let mut conf: serde_json::Value = serde_json::from_slice(call.input()).unwrap();
        (conf["prevResult"], conf["cni.dev/valid-attachments"]) =
            (json!(result), json!([delegated.pod.eth0().valid()]));
        call.stdin(conf.to_string())
    };
    let verbs = ["CHECK", "STATUS", "GC", "DEL"];
    for verb in &verbs[..3] {
        assert_eq!(call(verb).run().expect_ok().stdout, "");
    }
    fs::write(delegated.folder.path().join("refuse"), "").unwrap();
    for verb in verbs {
        let outcome = call(verb).run();
        assert_eq!((outcome.error_code(), outcome.error_text()), (57, "not now: ".into()), "{verb}");
    }
    assert_eq!(delegated.calls(), ["ADD", "CHECK", "STATUS", "GC", "CHECK", "STATUS", "GC", "DEL"]);
    // The link is deleted although the address could not be released.
    assert!(!delegated.pod.has_link("eth0"));
}
