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

    /// What there is for `path`, and for `path` without its last byte, which is where a listing falls back to. One walk, no
    /// allocation.
    pub(crate) fn find(&self, path: &str) -> (Found, Found) {
        let mut rest = path.as_bytes();
        let mut node = &self.nodes[0];
        let mut prefix = node.prefix.map(|entry| (entry, 0));
        let mut shorter = None;
        loop {
            let Some(first) = rest.first() else {
                return (Found { exact: node.exact, prefix }, shorter.unwrap_or_default());
            };
            if rest.len() == 1 {
                shorter = Some(Found { exact: node.exact, prefix });
            }
            let next = node
                .children
                .binary_search_by_key(first, |(byte, _)| *byte)
                .ok()
                .map(|child| &self.nodes[node.children[child].1 as usize]);
            let Some((child, after)) = next.and_then(|child| Some((child, rest.strip_prefix(&*child.label)?))) else {
                let found = Found { exact: None, prefix };
                return (found, shorter.unwrap_or(found));
            };
            if after.is_empty() && shorter.is_none() {
                shorter = Some(Found { exact: None, prefix }); // the shorter path ends inside this label
            }
            (node, rest) = (child, after);
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
        fn finds_what_a_list_would(
            entries in prop::collection::vec(("[ab/é]{0,6}", any::<bool>()), 0..24),
            path in "[ab/é]{0,8}",
        ) {
            let mut tree = Tree::new();
            for (i, (text, exact)) in entries.iter().enumerate() {
                let i = u32::try_from(i).unwrap();
                if *exact { tree.insert_exact(text, i) } else { tree.insert_prefix(text, i) }
            }
            let longest = |exact: bool, test: &dyn Fn(&str) -> bool| {
                let numbered = entries.iter().zip(0u32..).filter(|((text, is), _)| *is == exact && test(text));
                numbered.map(|((text, _), i)| (text.len(), i)).max()
            };
            let expected = |path: &str| Found {
                exact: longest(true, &|text| text == path).map(|(_, i)| i),
                prefix: longest(false, &|text| path.starts_with(text)).map(|(len, i)| (i, len)),
            };
            let (found, shorter) = tree.find(&path);
            prop_assert_eq!(found, expected(&path));
            if let Some(bare) = path.strip_suffix(['a', 'b', '/']) {
                prop_assert_eq!(shorter, expected(bare));
            }
        }
    }
}
