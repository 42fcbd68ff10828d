use std::time::Duration;

use keyward_model::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::rule::{Limits, Rule};

fn one(text: &str) -> Rule {
    let mut rules = parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).rules;
    assert_eq!(rules.len(), 1, "{text}");
    rules.remove(0)
}

fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn blanks_and_comments_are_an_empty_policy() {
    for text in ["", " \n", "# one\n// two\n/* three */\n", "name = \"n\"", "name =", "{}"] {
        assert!(parse(text).unwrap().rules.is_empty(), "{text}");
    }
    assert_eq!(parse("name = \"n\"").unwrap().name.as_deref(), Some("n"));
    assert_eq!(parse("{\"name\": 5}").unwrap().name.as_deref(), Some("5"));
}

#[test]
fn labels_in_every_accepted_form() {
    for (text, path) in [
        (r#"path "a/b" { capabilities = ["read"] }"#, "a/b"),
        (r#"path a { capabilities = ["read"] }"#, "a"),
        (r#"path { capabilities = ["read"] }"#, "path"),
        (r#"path "a" "b" { capabilities = ["read"] }"#, "a"),
        (r#"path "" { capabilities = ["read"] }"#, ""),
        (r#""path" "a" { capabilities = ["read"] }"#, "a"),
        (r#"path "a${b}" { capabilities = ["read"] }"#, "a${b}"),
        (r#"path "a${"q"}" { capabilities = ["read"] }"#, "a${\"q\"}"),
        (r#"path "a${b${c}d}" { capabilities = ["read"] }"#, "a${b${c}d}"),
        (r#"path "a\"\\\n\u0041\x41\101" { capabilities = ["read"] }"#, "a\"\\\nAAA"),
        ("path \"ü/日本\" {\r\n capabilities = [\"read\"] }", "ü/日本"),
        (r#"path "a" { capabilities = ["read",,] , }"#, "a"),
        (r#"path "a" { comment = "why", capabilities = ["read", "read"] mfa_methods = ["x"] }, "#, "a"),
        (r#"{"path":{"a":{"capabilities":["read"]}}}"#, "a"),
        (r#" {"path" : [ {"a":{"capabilities":["read",]},}, ] } "#, "a"),
        (r#"{"path":{"a":{"b":{"capabilities":["read"]}}}}"#, "a"),
        (r#"{"path":{"a\u0062\"":{"capabilities":["read"]}}}"#, "ab\""),
    ] {
        let rule = one(text);
        assert_eq!((rule.path.as_str(), rule.capabilities.words()), (path, vec!["read"]), "{text}");
    }
}

#[test]
fn heredocs() {
    for (text, comment) in [
        ("path a { policy = \"read\" }\nname = <<END\none\n  two\nEND\n", "one\n  two\n"),
        ("name = <<-END\n  one\n    two\n  END\n", "one\n  two\n"),
        ("name = <<-END\none\n  END\n", "one\n"),
        ("name = <<END\nEND\n", ""),
        ("name = <<END\r\none\r\nEND\r\n", "one\r\n"),
    ] {
        assert_eq!(parse(text).unwrap().name.as_deref(), Some(comment), "{text}");
    }
}

#[test]
fn no_capability_is_deny() {
    for text in [r#"path "a" {}"#, r#"path "a" { capabilities = [] }"#, r#"{"path":{"a":{"capabilities":[]}}}"#] {
        assert_eq!(one(text).capabilities.words(), ["deny"], "{text}");
    }
}

#[test]
fn repeated_keys_are_joined_and_the_last_word_counts() {
    let rule = one(r#"path "a" {
            capabilities = ["read"]
            capabilities = ["list"]
            policy = "deny"
            policy = "sudo"
            required_parameters = ["a"]
            required_parameters = ["B"]
            allowed_parameters = { x = ["1"], X = [2] }
            allowed_parameters { x = ["3"] }
            pagination_limit = 9
            pagination_limit = "0x10"
            min_wrapping_ttl = "1h"
            min_wrapping_ttl = 90
        }"#);
    assert_eq!(rule.capabilities.words(), ["create", "delete", "list", "read", "sudo", "update"]);
    let required = rule.limits.required.iter().map(|name| (name.written.as_str(), name.given.as_str()));
    assert_eq!(required.collect::<Vec<_>>(), [("a", "a"), ("B", "b")]);
    assert_eq!(rule.limits.allowed.to_json(), json!({"x": [2, "1", "3"]}));
    assert_eq!(rule.limits.pagination_limit, Some(16));
    assert_eq!(rule.limits.min_wrapping_ttl, Some(Duration::from_secs(90)));
}

#[test]
fn every_key_of_a_stanza() {
    let hcl = one(r#"path "a" {
            comment = "a"
            capabilities = ["list"]
            allowed_parameters = { "x" = ["y", 5, 1.50, true, [1], { k = "v" }] }
            denied_parameters = { "*" = [] }
            required_parameters = ["r"]
            min_wrapping_ttl = "1m"
            max_wrapping_ttl = 90.5
            pagination_limit = 7
            expiration = "2030-01-02T03:04:05Z"
            list_scan_response_keys_filter_path = "{{ .path }}{{ .key }}"
        }"#);
    let json = one(r#"{"path":{"a":{
            "capabilities": ["list"],
            "allowed_parameters": [{"x": ["y", 5, 1.50, true, [1], {"k": "v"}]}],
            "denied_parameters": {"*": []},
            "required_parameters": ["r"],
            "min_wrapping_ttl": 60, "max_wrapping_ttl": "90500ms", "pagination_limit": "7",
            "expiration": 1893553445,
            "list_scan_response_keys_filter_path": "{{ .path }}{{ .key }}"
        }}}"#);
    assert_eq!(hcl, json);
    assert_eq!(hcl.limits.allowed.to_json(), json!({"x": ["y", 5, 1.5, true, [1], {"k": "v"}]}));
    assert_eq!(hcl.limits.max_wrapping_ttl, Some(Duration::from_millis(90_500)));
    assert_eq!(hcl.expires, Some(Timestamp::parse_rfc3339("2030-01-02T03:04:05Z").unwrap()));
}

#[test]
fn negative_bounds_are_none() {
    let text = r#"path "a" { capabilities = ["list"] min_wrapping_ttl = "-5s" pagination_limit = -5 expiration = "" }"#;
    assert_eq!(one(text).limits, Limits::default());
}

#[test]
fn what_stands_beside_deny_is_not_looked_at() {
    let text =
        r#"path "a" { capabilities = ["read", "deny", "fly"] min_wrapping_ttl = "soon" required_parameters = ["a"] }"#;
    assert_eq!((one(text).capabilities.words(), one(text).limits), (vec!["deny"], Limits::default()));
}

#[test]
fn two_rules_of_one_path_and_members_that_repeat() {
    for text in [
        "path \"a\" { capabilities = [\"read\"] }\npath \"a\" { capabilities = [\"list\"] }",
        r#"{"path":{"a":{"capabilities":["read"]},"a":{"capabilities":["list"]}}}"#,
        r#"{"path":{"a":{"capabilities":["read"]}},"path":{"a":{"capabilities":["list"]}}}"#,
    ] {
        let words: Vec<_> = parse(text).unwrap().rules.iter().flat_map(|rule| rule.capabilities.words()).collect();
        assert_eq!(words, ["read", "list"], "{text}");
    }
    assert_eq!(
        one(r#"{"path":{"a":{"capabilities":["read"],"capabilities":["list"]}}}"#).capabilities.words(),
        ["list", "read"]
    );
}

#[test]
fn faults_in_the_words_of_the_peer() {
    for (text, expected) in [
        ("road \"x\" {}", "1 error occurred:\n\t* invalid key \"road\" on line 0\n\n"),
        ("\nfoo = 1", "1 error occurred:\n\t* invalid key \"foo\" on line 2\n\n"),
        ("a = 1\nb {}", "2 errors occurred:\n\t* invalid key \"a\" on line 1\n\t* invalid key \"b\" on line 0\n\n"),
        (
            "path \"secret/x\" { capabilites = [\"read\"] }",
            "1 error occurred:\n\t* path \"secret/x\": invalid key \"capabilites\" on line 1\n\n",
        ),
        ("path \"x\" { capabilities = [\"Read\"] }", "path \"x\": invalid capability \"Read\""),
        ("path \"x\" { policy = \"own\" }", "path \"x\": invalid policy \"own\""),
        ("path \"/x/+*\" {}", "path \"x/+*\": invalid use of wildcards ('+*' is forbidden)"),
        ("path \"x\" { min_wrapping_ttl = \"x\" }", "error parsing min_wrapping_ttl: time: invalid duration \"x\""),
        ("path \"x\" { max_wrapping_ttl = [] }", "error parsing max_wrapping_ttl: could not parse duration from input"),
        (
            "path \"x\" { min_wrapping_ttl = \"2m\" max_wrapping_ttl = \"1m\" }",
            "max_wrapping_ttl cannot be less than min_wrapping_ttl",
        ),
        (
            "path \"x\" { expiration = \"soon\" }",
            "path \"x\": invalid expiration time: could not parse string as date and time",
        ),
        ("path \"x\" { pagination_limit = \"x\" }", "path \"x\": strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("path \"x\" { pagination_limit = 08 }", "path \"x\": strconv.ParseInt: parsing \"08\": invalid syntax"),
        (
            "path \"x\" { pagination_limit = 99999999999999999999 }",
            "path \"x\": strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "path \"x\" { capabilities = [\"read\"] list_scan_response_keys_filter_path = \"{{ .key }}\" }",
            "list_scan_response_keys_filter_path needs to be used on a path with the list capability",
        ),
        (
            "path \"x\" { capabilities = [\"list\"] list_scan_response_keys_filter_path = \"{{ .path }}\" }",
            "list_scan_response_keys_filter_path resulted in same path for two different keys",
        ),
        (
            "path \"x\" { capabilities = [\"list\"] list_scan_response_keys_filter_path = \"{{ .path\" }",
            "unable to compile template for list_scan_response_keys_filter_path: unclosed action",
        ),
        ("path \"{{a\" {}", "failed to validate policy templating: unbalanced templating characters"),
        ("path \"x\" { capabilities = \"read\" }", "path \"x\": At 1:27: unknown slice type: *ast.LiteralType"),
        (
            "path \"x\" { capabilities = [true] }",
            "path \"x\": At 1:28: root.Capabilities[0]: unknown type for string *ast.LiteralType",
        ),
        (
            "path \"x\" { allowed_parameters = [{a = []}] }",
            "path \"x\": At 1:33: root.allowed_parameters: not an object type for map (*ast.ListType)",
        ),
        (
            "path \"x\" { allowed_parameters = { a = \"b\" } }",
            "path \"x\": At 1:39: unknown slice type: *ast.LiteralType",
        ),
        ("path = \"x\"", "path \"path\": cannot check HCL keys of type *ast.LiteralType"),
        ("path = { \"p\" = {} }", "1 error occurred:\n\t* path \"path\": invalid key \"p\" on line 1\n\n"),
        ("!", "At 1:1: illegal char"),
        ("\u{feff}path a {}", "At 1:1: illegal char"),
        ("path \"a\" { capabilities: [] }", "At 1:24: illegal char"),
        ("/* x", "At 1:5: comment not terminated"),
        ("/x", "At 1:1: expected '/' for comment"),
        ("path \"a", "At 1:8: literal not terminated"),
        ("path \"a\n\" {}", "At 2:5: literal not terminated"),
        ("path \"a\\q\" {}", "At 1:9: illegal char escape"),
        ("path \"a\\xff\" {}", "At 1:12: illegal char escape"),
        ("a = <<EOF\nx", "At 2:2: heredoc not terminated"),
        ("a = <<EOF", "At 1:10: heredoc not terminated"),
        ("\0", "At 1:1: unexpected null character (0x00)"),
        ("path \"a\" {", "At 1:12: object expected closing RBRACE got: EOF"),
        ("path \"a\" { capabilities = ", "At 1:28: object expected closing RBRACE got: EOF"),
        ("path \"a\" { capabilities = [\"read\" ", "At 1:35: error parsing list, expected comma or list end, got: EOF"),
        (
            "path \"a\" { capabilities = [\"read\" \"list\"] }",
            "At 1:35: error parsing list, expected comma or list end, got: STRING",
        ),
        ("path \"a\" { capabilities = [read] }", "At 1:28: unexpected token while parsing list: IDENT"),
        ("path \"a\" { capabilities = read }", "At 1:27: Unknown token: 1:27 IDENT read"),
        ("path \"a\"", "At 1:9: key 'path \"a\"' expected start of object ('{') or assignment ('=')"),
        ("path \"a\" = {}", "At 1:10: nested object expected: LBRACE got: ASSIGN"),
        ("path \"a\" {}}", "At 1:12: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE"),
        ("= 5", "At 1:1: no object keys found!"),
        ("{\"path\":{\"p\":{\n\"foo\":1}}}", "1 error occurred:\n\t* path \"p\": invalid key \"foo\" on line 2\n\n"),
        (
            "{\"path\":{\"p\":{\"allowed_parameters\":{\"x\":[\"y\"]}}}}",
            "1 error occurred:\n\t* path \"p\": invalid key \"x\" on line 1\n\n",
        ),
        ("{\"path\":{\"p\":{\"capabilities\":\"read\"}}}", "path \"p\": At -: unknown slice type: *ast.LiteralType"),
        ("{\"path\":{\"p\":[{}]}}", "1 error occurred:\n\t* path \"path\": invalid key \"p\" on line 1\n\n"),
    ] {
        assert_eq!(refusal(text), format!("failed to parse policy: {expected}"), "{text}");
    }
}

#[test]
fn null_in_a_list_is_refused_of_what_is_new_and_read_from_what_is_stored() {
    let list = r#"{"path":{"p":{"capabilities":["update"],"denied_parameters":{"a":["x",null]}}}}"#;
    let refused = accept(list).unwrap_err().to_string();
    assert_eq!(refused, "failed to parse policy: unexpected token while parsing list: NULL");
    let rule = parse(list).unwrap().rules.remove(0);
    assert_eq!(rule.limits.denied.to_json(), serde_json::json!({"a": ["x", null]}));
    let plain = list.replace(",null", "");
    assert_eq!(accept(&plain), parse(&plain));
}

#[test]
fn json_that_is_cut_off_anywhere_is_refused() {
    let text = r#"{"path": {"secret/x": {"capabilities": ["read"], "pagination_limit": 5}}}"#;
    assert!(parse(text).is_ok());
    for end in 1..text.len() {
        assert!(parse(&text[..end]).is_err(), "{}", &text[..end]);
    }
    for behind in ["x", "{}", "}", "\0"] {
        assert!(parse(&format!("{text}{behind}")).is_err());
    }
    assert_eq!(refusal("{\"path\":"), "failed to parse policy: At 1:9: expected a value, but the text ends");
    for text in ["{\"a\" 1}", "{1:2}", "{\"path\":tru}", "{\"path\":\"\\q\"}", "{\"path\":-}", "{\"path\":\"a\nb\"}"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn size_depth_and_number_are_bounded() {
    assert!(refusal(&"#".repeat(TEXT_BYTES_MAX + 1)).contains("longer than"));
    assert!(parse(&"#".repeat(TEXT_BYTES_MAX)).is_ok());
    let rule = "path a{}\n";
    assert!(parse(&rule.repeat(RULES_MAX)).is_ok());
    assert!(refusal(&rule.repeat(RULES_MAX + 1)).contains("are more than"));
    for open in ["a{", "a=[", "a=[[", "a=[{b=", "{\"a\":", "{\"a\":["] {
        let deep = open.repeat(TEXT_BYTES_MAX / open.len());
        assert!(parse(&deep).is_err());
    }
    let nested = format!("path a {{ comment = {}{} }}", "[".repeat(DEPTH_MAX - 1), "]".repeat(DEPTH_MAX - 1));
    assert!(parse(&nested).is_ok());
}

/// Pieces from which texts arise that are nearly policies.
const PIECES: [&str; 40] = [
    "path ",
    "\"a\"",
    "\"kv/+/x*\"",
    "\"{{a}}\"",
    " {",
    "} ",
    "capabilities",
    " = ",
    "[",
    "]",
    "\"read\"",
    "\"deny\"",
    ",",
    "policy",
    "\"write\"",
    "allowed_parameters",
    "{",
    "}",
    "5",
    "1.5e3",
    "true",
    "\n",
    "# c\n",
    "/* c */",
    "/",
    "name",
    "min_wrapping_ttl",
    "\"5s\"",
    "pagination_limit",
    "-3",
    "0x",
    "<<E\n",
    "E\n",
    "\\",
    "\"",
    "$",
    "${",
    ":",
    "é",
    "\0",
];

proptest! {
    #[test]
    fn rubbish_is_refused_without_panic(text in ".{0,200}") {
        let _outcome = parse(&text);
    }

    #[test]
    fn near_policies_do_not_panic(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        let _outcome = parse(&pieces.concat());
        let _outcome = parse(&format!("{{{}", pieces.concat()));
    }

    #[test]
    fn any_path_can_be_written(path in "[^\\x00-\\x1f{}+*$]{0,40}") {
        let hcl = path.replace('\\', "\\\\").replace('"', "\\\"");
        prop_assert_eq!(&one(&format!("path \"{hcl}\" {{}}")).path, &path);
        let json = json!({"path": {&path: {"capabilities": ["read"]}}}).to_string();
        prop_assert_eq!(&one(&json).path, &path);
    }
}
