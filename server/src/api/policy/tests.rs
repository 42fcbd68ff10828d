use super::*;

#[test]
fn names_come_before_the_folders_beside_them() {
    let mut names = vec!["b/z", "a", "b/a/x", "c", "b", "b/b/y", "c/x", "b/b/x", "-"];
    names.sort_unstable_by(|a, b| listed_before(a, b));
    assert_eq!(names, ["-", "a", "b", "c", "c/x", "b/z", "b/b/x", "b/b/y", "b/a/x"]);
}
