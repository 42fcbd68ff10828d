//! A radix tree over paths that holds exact rules and prefix rules side by side, so that one walk answers for both.

/// A tree in one flat list of nodes; the root is the first.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    label: Box<[u8]>,
    exact: Option<u32>,
    prefix: Option<u32>,
    /// First byte of the child's label, and its place; sorted.
    children: Vec<(u8, u32)>,
}

/// What the tree holds for one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// The entry for exactly this path.
    pub(crate) exact: Option<u32>,
    /// The entry for the longest prefix of this path, with that prefix's length in bytes.
    pub(crate) prefix: Option<(u32, usize)>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    pub(crate) fn insert_exact(&mut self, path: &str, entry: u32) {
        let at = self.node_for(path.as_bytes());
        self.nodes[at].exact = Some(entry);
    }

    pub(crate) fn insert_prefix(&mut self, prefix: &str, entry: u32) {
        let at = self.node_for(prefix.as_bytes());
        self.nodes[at].prefix = Some(entry);
    }

    /// One walk, no allocation.
    pub(crate) fn find(&self, path: &str) -> Found {
        let mut rest = path.as_bytes();
        let mut node = &self.nodes[0];
        let mut prefix = node.prefix.map(|entry| (entry, 0));
        loop {
            let Some(first) = rest.first() else {
                return Found { exact: node.exact, prefix };
            };
            let Ok(child) = node.children.binary_search_by_key(first, |(byte, _)| *byte) else {
                return Found { exact: None, prefix };
            };
            node = &self.nodes[node.children[child].1 as usize];
            let Some(after) = rest.strip_prefix(&*node.label) else {
                return Found { exact: None, prefix };
            };
            rest = after;
            if let Some(entry) = node.prefix {
                prefix = Some((entry, path.len() - rest.len()));
            }
        }
    }

    /// The place of the node for `key`, made if there is none.
    fn node_for(&mut self, mut key: &[u8]) -> usize {
        let mut at = 0;
        while let Some(first) = key.first() {
            let slot = match self.nodes[at].children.binary_search_by_key(first, |(byte, _)| *byte) {
                Ok(slot) => slot,
                Err(slot) => {
                    let made = self.add(Node { label: key.into(), ..Node::default() });
                    self.nodes[at].children.insert(slot, (*first, made));
                    return made as usize;
                }
            };
            let child = self.nodes[at].children[slot].1;
            let label = &self.nodes[child as usize].label;
            let common = label.iter().zip(key).take_while(|(a, b)| a == b).count();
            if common == label.len() {
                at = child as usize;
            } else {
                let (head, tail): (Box<[u8]>, Box<[u8]>) = (label[..common].into(), label[common..].into());
                let children = vec![(tail[0], child)];
                self.nodes[child as usize].label = tail;
                let made = self.add(Node { label: head, children, ..Node::default() });
                self.nodes[at].children[slot].1 = made;
                at = made as usize;
            }
            key = &key[common..];
        }
        at
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        // INVARIANT: policies are bounded texts; four thousand million nodes would not fit in memory
        (self.nodes.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_list_would(entries in prop::collection::vec(("[ab/é]{0,6}", any::<bool>()), 0..24), path in "[ab/é]{0,8}") {
            let mut tree = Tree::new();
            for (i, (text, exact)) in entries.iter().enumerate() {
                if *exact { tree.insert_exact(text, i as u32) } else { tree.insert_prefix(text, i as u32) }
            }
            let last = |exact: bool, test: &dyn Fn(&str) -> bool| {
                entries.iter().enumerate().filter(|(_, (text, is))| *is == exact && test(text)).map(|(i, (text, _))| (text.len(), i as u32)).max()
            };
            let expected = Found {
                exact: last(true, &|text| text == path).map(|(_, i)| i),
                prefix: last(false, &|text| path.starts_with(text)).map(|(len, i)| (i, len)),
            };
            prop_assert_eq!(tree.find(&path), expected);
        }
    }
}
