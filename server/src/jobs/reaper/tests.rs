use keyward_model::Secret;

use super::*;
use crate::authn::token::{Token, TokenKind};
use crate::testing::{ask, on_a_node};

fn key(worker: &Worker, name: &str) -> [u8; 32] {
    token::key_of(&worker.app.barrier.keyring().unwrap(), name)
}

fn facts(worker: &Worker) -> RefCell<Facts> {
    RefCell::new(Facts::of_server(&worker.app.barrier))
}

/// Tokens named `name-0` … `name-<count - 1>` below `parent`, alive for `ttl_s` seconds.
async fn issue(worker: &Worker, name: &str, count: usize, parent: &str, ttl_s: Option<i64>) {
    let parent = key(worker, parent);
    for start in (0..count).step_by(200) {
        worker
            .write(&facts(worker), |draft| {
                for number in start..count.min(start + 200) {
                    let now = draft.now();
                    let policies = vec!["default".into()];
                    let token = Token {
                        orphan: false,
                        expires: ttl_s.map(|ttl| now.plus_seconds(ttl)),
                        ..Token::new(TokenKind::Service, "auth/token/create", policies, now, draft.entropy())
                    };
                    let key = token::key_of(draft.keyring(), &format!("{name}-{number}"));
                    token::put(draft, &key, &token, &parent)?;
                }
                Ok(())
            })
            .await
            .unwrap();
    }
}

fn lives(worker: &Worker, name: &str) -> bool {
    worker.session(name).unwrap().is_some()
}

#[test]
fn a_large_family_ends_at_once_and_goes_in_steps() {
    on_a_node(async |worker, _| {
        issue(worker, "parent", 1, "root", None).await;
        issue(worker, "child", 700, "parent-0", None).await;
        issue(worker, "grandchild", 3, "child-699", Some(3600)).await;
        assert!(lives(worker, "grandchild-2"));
        let before = worker.reader().count(Table::Tokens).unwrap();

        let parent = key(worker, "parent-0");
        let (revoked, _) = worker.write(&facts(worker), |draft| token::revoke_tree(draft, &parent)).await.unwrap();
        assert_eq!(revoked, ());
        for name in ["parent-0", "child-0", "child-699", "grandchild-0", "grandchild-2"] {
            assert!(!lives(worker, name), "{name}");
        }
        assert_eq!(before - worker.reader().count(Table::Tokens).unwrap(), 256);

        let mut steps = Vec::new();
        loop {
            match reap(worker, 300).await.unwrap() {
                0 => break,
                removed => steps.push(removed),
            }
        }
        assert_eq!(steps, [300, 148]);
        assert_eq!(worker.reader().count(Table::Tokens).unwrap(), 1);
        assert_eq!(worker.reader().count(Table::Accessors).unwrap(), 1);
        assert!(lives(worker, "root"));
    });
}

#[test]
fn a_large_family_that_was_revoked_has_ended_by_every_clock() {
    on_a_node(async |worker, clock| {
        issue(worker, "parent", 1, "root", None).await;
        issue(worker, "child", 300, "parent-0", None).await;
        // The clock of whoever led went before, by more than stamps are followed.
        clock.advance(20 * 86_400);
        assert_eq!(ask(worker, "root", "POST", "auth/token/revoke", r#"{"token":"parent-0"}"#).await.0, 204);
        clock.advance(-20 * 86_400);
        for name in ["parent-0", "child-0", "child-299"] {
            assert_eq!(ask(worker, name, "GET", "auth/token/lookup-self", "").await.0, 403, "{name}");
        }
        assert_eq!(reap(worker, 300).await, Ok(45));
    });
}

#[test]
fn a_token_ends_with_the_first_of_its_ancestors_and_is_renewed_with_it() {
    on_a_node(async |worker, clock| {
        issue(worker, "a", 1, "root", Some(3600)).await;
        issue(worker, "b", 1, "a-0", None).await;
        issue(worker, "c", 1, "b-0", Some(7200)).await;
        assert!(lives(worker, "c-0"));
        clock.advance(3600);
        assert!(!lives(worker, "a-0") && !lives(worker, "b-0") && !lives(worker, "c-0"));
        assert!(!lives(worker, "c-0"), "also when it is remembered");
        for (more, alive) in [(60, true), (0, false)] {
            let key = key(worker, "a-0");
            worker
                .write(&facts(worker), |draft| {
                    let (mut token, parent) = token::get(draft, &key)?.unwrap();
                    token.expires = Some(draft.now().plus_seconds(more));
                    token::put(draft, &key, &token, &parent)
                })
                .await
                .unwrap();
            assert_eq!((lives(worker, "b-0"), lives(worker, "c-0")), (alive, alive), "{more}");
        }
        assert_eq!(reap(worker, REAP_ROWS_MAX).await.unwrap(), 3);
        assert_eq!(reap(worker, REAP_ROWS_MAX).await.unwrap(), 0);
    });
}

#[test]
fn a_cubbyhole_goes_with_its_token() {
    on_a_node(async |worker, clock| {
        let secret = Secret::new("t-0".to_owned());
        issue(worker, "t", 1, "root", Some(5)).await;
        let key = key(worker, secret.expose());
        worker
            .write(&facts(worker), |draft| {
                let (token, _) = token::get(draft, &key)?.unwrap();
                let tree = crate::engine::tree::Tree { mount: token.cubbyhole, leaves: Table::Entries };
                for path in ["x", "f/y", "f/g/z"] {
                    tree.add_folders(draft, path)?;
                    let key = tree.key(draft.keyring(), path);
                    draft.put(Table::Entries, &key, crate::barrier::Columns::default(), b"{}")?;
                }
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(worker.reader().count(Table::Entries).unwrap(), 3);
        assert_eq!(reap(worker, 2).await.unwrap(), 0);
        clock.advance(5);
        while reap(worker, 2).await.unwrap() > 0 {}
        for (table, left) in [(Table::Entries, 0), (Table::Folders, 0), (Table::Tokens, 1), (Table::Accessors, 1)] {
            assert_eq!(worker.reader().count(table).unwrap(), left, "{}", table.name());
        }
    });
}
