use super::*;

#[test]
fn blanks_and_comments_are_an_empty_policy() {
    for text in ["", " \n", "# one\n// two\n/* three */\n", "name = \"n\""] {
        assert!(parse(text).unwrap().rules.is_empty(), "{text}");
    }
}
