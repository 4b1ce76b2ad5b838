//! Plain English in comments, messages and documents: finds wordings that readers stumble over, and long
//! sentences.

mod passages;

use super::Finding;
use anyhow::{Context, Result};
use passages::passages;
use regex::Regex;

/// The most words that a sentence of a document has.
const LONGEST: usize = 35;

/// A wording to avoid.
struct Calque {
    /// A regular expression, without regard to case.
    pattern: &'static str,
    /// Matches that are good English.
    unless: Option<&'static str>,
    /// Why it is avoided, and what to write.
    advice: &'static str,
    /// For the test: a sentence that is reported, and one without a finding.
    #[cfg_attr(not(test), expect(dead_code))]
    examples: [&'static str; 2],
}

const CALQUES: &[Calque] = &[
    Calque {
        pattern: r"\bwhom\b",
        unless: None,
        advice: "name the machine, process or person, or ask which one",
        examples: ["The server says whom it saw.", "The server says which address it saw."],
    },
    Calque {
        pattern: r"\b(?:about|after|as|at|because|before|beside|by|for|from|in|of|on|than|to|until|where|with) who\b",
        unless: None,
        advice: "a clause needs a noun: \"a process that\", \"a client that\"",
        examples: [
            "Serves a greeting to who asks for it.",
            "Serves a greeting to a client that asks for it.",
        ],
    },
    Calque {
        pattern: r"(?:^|[.:;] )who [^?.]*\.",
        unless: None,
        advice: "a sentence needs a subject: \"a process that\", \"a machine that\"",
        examples: ["Who is killed writes nothing.", "Who is there? A killed process writes nothing."],
    },
    Calque {
        pattern: r"\b(?:address|bridge|call|caller|client|container|daemon|holder|host|kernel|machine|neighbour|node|one|owner|packet|plugin|pod|process|program|router|runtime|server|thread),? who\b",
        unless: None,
        advice: "things are not persons: write \"that\" or \"which\"",
        examples: ["A process who waits gives up.", "A user who waits gives up."],
    },
    Calque {
        pattern: r"\bwho(?:m|se)?ever\b",
        unless: None,
        advice: "name the subject: \"any process that\"",
        examples: ["Whoever opens the file waits.", "Any process that opens the file waits."],
    },
    Calque {
        pattern: r", for (?:it|they|there|we|nothing|nobody) [a-z]+|, for (?:the|an?|no|this|each|these) [^,.;:]{1,40}? (?:is|are|was|were|has|have|may|must|can|could|would|will|does|do|leaks|takes|needs)\b|, for `[^`]*` (?:is|has|may|must|can|would|will|does|goes|takes|needs)\b",
        unless: Some(r"\b(?:that|which|whose|who)\b"),
        advice: "\"for\" is read as a preposition: write \"because\"",
        examples: [
            "It is ignored, for a failed DEL leaks.",
            "It makes a file, for a script that has to wait, for an hour.",
        ],
    },
    Calque {
        pattern: r"\b(?:an?|empty|such an?) text\b|\btexts\b",
        unless: None,
        advice: "the type is called a string",
        examples: ["The value is not a text.", "The value is not a string. Its text is long."],
    },
    Calque {
        pattern: r"\bone (?:that|which) (?:is|was) ",
        unless: None,
        advice: "repeat the noun instead of \"one that is\"",
        examples: ["A file is kept, but one that is empty goes.", "A file is kept, but an empty file goes."],
    },
    Calque {
        pattern: r"\bmend(?:s|ed|ing)?\b",
        unless: None,
        advice: "write \"repair\" or \"fix\"",
        examples: ["ADD mends the rules.", "ADD repairs the rules of a tremendous pod."],
    },
    Calque {
        pattern: r"\bdebris\b",
        unless: None,
        advice: "say what is left: files, rules, links",
        examples: ["A killed ADD leaves debris.", "A killed ADD leaves links."],
    },
    Calque {
        pattern: r"\bput(?:s|ting)? (?:[a-z]+ ){0,2}right\b|\bsets? (?:it|them|that|this) right\b",
        unless: None,
        advice: "write \"repair\" or \"restore\"",
        examples: ["The next call puts it right.", "The next call repairs the right rule."],
    },
    Calque {
        pattern: r"\bways? to (?:the|an?|its|their|his|each|another|other|pods|machines)\b",
        unless: None,
        advice: "packets have a route or a path",
        examples: ["The node has a way to the router.", "The node has a way to reach the router."],
    },
    Calque {
        pattern: r"\bsilenc(?:e|es|ed|ing)\b",
        unless: None,
        advice: "a link is set down",
        examples: ["DEL silences the pod.", "DEL sets the pod's link down. The pod is silent."],
    },
    Calque {
        pattern: r"\b(?:nobody|somebody|anybody|everybody)(?:'s| else's| elses)\b",
        unless: None,
        advice: "name the owner: \"of another machine\", \"of another program\"",
        examples: ["The file is somebody else's.", "The file belongs to another program."],
    },
    Calque {
        pattern: r"\bbusiness\b",
        unless: None,
        advice: "say what the thing does or does not do",
        examples: ["That is the pod's own business.", "The plugin does not look at that."],
    },
    Calque {
        pattern: r"\bwith(?:out)? a word\b|\ba word (?:on|in|about)\b",
        unless: None,
        advice: "say which message: \"without a message\", \"a warning about\"",
        examples: ["It ends without a word.", "It ends without a message. A word of 32 bits follows."],
    },
    Calque {
        pattern: r"\b(?:anew|thereby|thereof|whence|wherefrom)\b",
        unless: None,
        advice: "write \"again\", \"so\", \"from there\"",
        examples: ["It makes the table anew.", "It makes the table again, and a new bridge."],
    },
    Calque {
        pattern: r"\b(?:nothing|something|anything) of (?:it|them|that|this|ours|theirs)\b",
        unless: None,
        advice: "name the things: \"no link or rule is left\"",
        examples: [
            "The ADD fails, and nothing of it stays.",
            "The ADD fails, and nothing is left of the rules.",
        ],
    },
    Calque {
        pattern: r"\bthat\b[^,.;:()]*\bthat\b[^,.;:()]*\bthat\b",
        unless: None,
        advice: "three times \"that\": make it two sentences",
        examples: [
            "A rule that drops packets that come from pods that are guarded.",
            "A rule that drops packets of pods, so that a bridge that filters, and that is old, works.",
        ],
    },
];

/// The calques, ready to be looked for.
pub(super) struct Prose {
    calques: Vec<(Regex, Option<Regex>, &'static str)>,
}

impl Prose {
    pub(super) fn new() -> Result<Prose> {
        let regex = |pattern: &str| {
            Regex::new(&format!("(?i){pattern}"))
                .with_context(|| format!("cannot read the pattern {pattern}"))
        };
        let read = |calque: &Calque| {
            Ok((regex(calque.pattern)?, calque.unless.map(regex).transpose()?, calque.advice))
        };
        Ok(Prose { calques: CALQUES.iter().map(read).collect::<Result<_>>()? })
    }

    /// Checks the prose of a file.
    pub(super) fn check(&self, path: &str, text: &str) -> Vec<Finding> {
        // The patterns and their bad examples are here.
        if path == "xtask/src/tidy/prose.rs" {
            return Vec::new();
        }
        let mut findings = Vec::new();
        for passage in passages(path, text) {
            let mut found = self.calques(&passage.text);
            if path.ends_with(".md") {
                found.extend(too_long(&passage.text));
            }
            findings.extend(found.into_iter().map(|(offset, message)| Finding {
                path: path.to_owned(),
                line: passage.line(offset),
                message,
            }));
        }
        findings
    }

    /// Where a text has calques, and what to write instead.
    fn calques(&self, text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (pattern, unless, advice) in &self.calques {
            for hit in pattern.find_iter(text) {
                if !unless.as_ref().is_some_and(|unless| unless.is_match(hit.as_str())) {
                    found.push((hit.start(), format!("\"{}\": {advice}", hit.as_str().trim())));
                }
            }
        }
        found
    }
}

/// The sentences of a text that have too many words. A sentence ends with a full stop, a question mark, or a
/// colon, before a space or the end.
fn too_long(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut start = 0;
    let ends = text.match_indices([' ']).map(|(at, _)| at).chain([text.len()]);
    for end in ends.filter(|end| text[..*end].ends_with(['.', '?', ':'])).chain([text.len()]) {
        let words = text[start..end].split_whitespace().count();
        if words > LONGEST {
            found.push((start + 1, format!("a sentence of {words} words: {LONGEST} at most")));
        }
        start = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wording_is_reported_and_its_better_form_is_not() {
        let all = Prose::new().unwrap();
        for calque in CALQUES {
            let of = |text: &str| {
                let found = all.calques(text);
                found.iter().filter(|(_, message)| message.ends_with(calque.advice)).count()
            };
            let [wrong, right] = calque.examples;
            assert!(of(wrong) > 0, "not reported: {wrong}");
            assert_eq!(of(right), 0, "reported: {right}");
        }
    }

    #[test]
    fn a_finding_names_its_line() {
        let found = Prose::new().unwrap().check("a.rs", "fn a() {}\n/// The rule that\n/// ADD mends.\n");
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3], "{found:?}");
        let code = "let mend = 1;\nlet text = `mend`;\n";
        assert!(Prose::new().unwrap().check("a.rs", code).is_empty());
    }

    #[test]
    fn long_sentences_of_documents_are_reported() {
        let sentence = |words: usize| format!("{}.", vec!["word"; words].join(" "));
        assert!(too_long(&format!("{} {}", sentence(LONGEST), sentence(LONGEST))).is_empty());
        let found = too_long(&format!("{} {}", sentence(3), sentence(LONGEST + 1)));
        assert_eq!(found.len(), 1, "{found:?}");
        let prose = Prose::new().unwrap();
        assert!(prose.check("a.rs", &format!("// {}", sentence(50))).is_empty());
        assert_eq!(prose.check("a.md", &sentence(50)).len(), 1);
    }
}
