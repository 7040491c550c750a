//! Device trees that boots change: read, and written as the Devicetree Specification 0.4 has it in
//! chapter 5.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Property as _, ToPropertyValue};

use crate::lab::QEMU;
use crate::qemu::command;

/// A device tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Memory that nobody may use: address and bytes.
    pub reserved: Vec<(u64, u64)>,
    /// The root.
    pub root: Node,
}

/// A node of a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    name: String,
    properties: Vec<(String, Vec<u8>)>,
    children: Vec<Node>,
}

impl Tree {
    /// The tree of a machine that QEMU has with these arguments, written to `file` on the way.
    pub fn of_machine(arguments: &[String], file: &Path) -> Result<Tree> {
        let mut arguments = arguments.to_vec();
        let machine = arguments.iter().position(|argument| argument == "-M");
        let machine = machine.and_then(|at| arguments.get_mut(at + 1)).context("no machine")?;
        *machine += &format!(",dumpdtb={}", file.display());
        let said = command(QEMU, arguments).args(["-nic", "none", "-display", "none"]).output()?;
        ensure!(said.status.success(), "{QEMU}: {}", String::from_utf8_lossy(&said.stderr));
        Tree::read(&std::fs::read(file)?)
    }

    /// The tree in these bytes, without what it reserves.
    pub fn read(bytes: &[u8]) -> Result<Tree> {
        let tree = Fdt::new(bytes).map_err(|e| anyhow!("the device tree: {e}"))?;
        Ok(Tree { reserved: Vec::new(), root: Node::read(&tree.root()) })
    }

    /// The bytes of the tree.
    pub fn to_bytes(&self) -> Vec<u8> {
        const HEADER: usize = 40;
        let mut reserved = Vec::new();
        for (address, bytes) in self.reserved.iter().chain([&(0, 0)]) {
            reserved.extend([address.to_be_bytes(), bytes.to_be_bytes()].concat());
        }
        let (mut nodes, mut names) = (Vec::new(), Vec::new());
        self.root.write(&mut nodes, &mut names);
        word(&mut nodes, 9);
        let nodes_at = HEADER + reserved.len();
        let names_at = nodes_at + nodes.len();
        let sizes = [names_at + names.len(), nodes_at, names_at, HEADER];
        let mut bytes = Vec::new();
        word(&mut bytes, 0xd00d_feed);
        sizes.iter().for_each(|size| word(&mut bytes, *size as u32));
        // The version, the oldest version that reads it, the boot core, the sizes of names and nodes.
        let rest = [17, 16, 0, names.len() as u32, nodes.len() as u32];
        rest.iter().for_each(|number| word(&mut bytes, *number));
        [bytes, reserved, nodes, names].concat()
    }

    /// Writes the tree to a file.
    pub fn write(&self, file: &Path) -> Result<()> {
        std::fs::write(file, self.to_bytes())
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// A number of the format.
fn word(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_be_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

impl Node {
    fn new(name: &str) -> Node {
        Node { name: name.into(), ..Node::default() }
    }

    fn read(node: &impl dtoolkit::Node) -> Node {
        let properties = node.properties();
        Node {
            name: node.name().as_ref().to_owned(),
            properties: properties.map(|it| (it.name().to_owned(), it.value().to_vec())).collect(),
            children: node.children().map(|child| Node::read(&child)).collect(),
        }
    }

    fn write(&self, out: &mut Vec<u8>, names: &mut Vec<u8>) {
        word(out, 1);
        out.extend([self.name.as_bytes(), b"\0"].concat());
        pad(out);
        for (name, value) in &self.properties {
            word(out, 3);
            word(out, value.len() as u32);
            word(out, names.len() as u32);
            names.extend([name.as_bytes(), b"\0"].concat());
            out.extend(value);
            pad(out);
        }
        self.children.iter().for_each(|child| child.write(out, names));
        word(out, 2);
    }

    /// The child of this name, which is made if there is none.
    pub fn child(&mut self, name: &str) -> &mut Node {
        let at = self.children.iter().position(|child| child.name == name);
        let at = at.unwrap_or_else(|| {
            self.children.push(Node::new(name));
            self.children.len() - 1
        });
        &mut self.children[at]
    }

    /// Removes all children whose names start like this; there must be some.
    pub fn remove(&mut self, start: &str) -> Result<()> {
        let before = self.children.len();
        self.children.retain(|child| !child.name.starts_with(start));
        ensure!(self.children.len() < before, "the device tree has no node {start}");
        Ok(())
    }

    /// Sets a property; an empty one is `[0_u8; 0]`.
    pub fn set(&mut self, name: &str, value: impl ToPropertyValue) -> &mut Node {
        let mut bytes = vec![0; value.property_value_len()];
        value.write_property_value(&mut bytes);
        self.properties.retain(|(known, _)| known != name);
        self.properties.push((name.into(), bytes));
        self
    }

    /// Removes a property, here and in all nodes below.
    pub fn remove_property(&mut self, name: &str) {
        self.properties.retain(|(known, _)| known != name);
        self.children.iter_mut().for_each(|child| child.remove_property(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_reads_back_as_it_was() {
        let mut tree = Tree::default();
        tree.root.set("model", "a board").set("compatible", ["x,y", "z"].as_slice());
        tree.root.child("memory@0").set("reg", [0_u32, 0, 0, 1]);
        tree.root.child("cpus").child("cpu@0").set("odd", [1_u8, 2, 3]).set("empty", [0_u8; 0]);
        tree.root.child("cpus").child("cpu@1").set("odd", [7_u8]);
        assert_eq!(Tree::read(&tree.to_bytes()).unwrap(), tree);

        tree.root.remove("cpu").unwrap();
        assert!(tree.root.remove("cpu").is_err());
        tree.root.child("memory@0").remove_property("reg");
        let read = Tree::read(&tree.to_bytes()).unwrap();
        assert_eq!(read.root.children, [Node::new("memory@0")]);
    }

    #[test]
    fn memory_is_reserved() {
        let tree = Tree { reserved: vec![(0x4810_0000, 0x1000)], ..Tree::default() };
        let bytes = tree.to_bytes();
        let read = Fdt::new(&bytes).unwrap();
        let reserved: Vec<String> =
            read.memory_reservations().map(|it| format!("{it:?}")).collect();
        assert_eq!(reserved.len(), 1, "{reserved:?}");
    }
}
