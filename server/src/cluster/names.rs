//! The names in a node's certificate. They hold ids only: what people call a node may change.

use keyward_model::Id;

/// What the names of all nodes of all clusters end in. It is no domain of anybody's.
const SUFFIX: &str = "node.keyward";

/// The name that one node proves to have.
pub fn of_node(cluster: Id, number: u64) -> String {
    format!("{number:016x}.{}", of_cluster(cluster))
}

/// The name that every node of the cluster proves to have.
pub fn of_cluster(cluster: Id) -> String {
    format!("{}.{SUFFIX}", hex::encode(cluster.0))
}

/// The node for auditors: its cluster, its id, and how many times it was set up anew.
pub fn uri(cluster: Id, node: Id, incarnation: u64) -> String {
    format!("keyward://{}/node/{}/{incarnation}", cluster.to_uuid(), node.to_uuid())
}

/// The incarnation in what [`uri`] made for a node of `cluster`; `None` for anything else.
pub fn incarnation(text: &str, cluster: Id) -> Option<u64> {
    let rest = text.strip_prefix("keyward://")?.strip_prefix(&cluster.to_uuid())?.strip_prefix("/node/")?;
    let (node, incarnation) = rest.split_once('/')?;
    let (node, incarnation) = (Id::from_uuid(node)?, incarnation.parse().ok()?);
    (text == uri(cluster, node, incarnation)).then_some(incarnation)
}

/// Cluster and number from a name that [`of_node`] made; `None` for any other.
pub fn parse(name: &str) -> Option<(Id, u64)> {
    let (number, rest) = name.split_once('.')?;
    let (cluster, suffix) = rest.split_once('.')?;
    let cluster = <[u8; 16]>::try_from(hex::decode(cluster).ok()?).ok().map(Id)?;
    let number = u64::from_str_radix(number, 16).ok()?;
    (suffix == SUFFIX && name == of_node(cluster, number)).then_some((cluster, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let (cluster, number) = (Id([0xab; 16]), 0x17);
        let name = of_node(cluster, number);
        assert_eq!(parse(&name), Some((cluster, number)));
        for other in [
            name.to_uppercase(),
            name.replace("0000000000000017", "17"),
            format!("x.{name}"),
            format!("{name}.example"),
            of_cluster(cluster),
            String::new(),
        ] {
            assert_eq!(parse(&other), None, "{other}");
        }
        assert!(rustls_pki_types::ServerName::try_from(name).is_ok());
    }

    #[test]
    fn the_incarnation_is_read_for_its_own_cluster() {
        let (cluster, node) = (Id([0xab; 16]), Id([0xcd; 16]));
        let text = uri(cluster, node, 12);
        assert_eq!(incarnation(&text, cluster), Some(12));
        assert_eq!(incarnation(&text, node), None);
        for other in [format!("{text}/"), text.replace("/12", "/012"), text.replace("/12", ""), format!("x{text}")] {
            assert_eq!(incarnation(&other, cluster), None, "{other}");
        }
    }
}
