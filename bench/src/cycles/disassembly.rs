//! Parser of `llvm-objdump`'s listing of the kernel.

#![forbid(unsafe_code)]

/// A function of the listing.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its instructions, in order.
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The address.
    pub address: u64,
    /// The operation, such as `smlal`.
    pub mnemonic: String,
    /// The operands, as text.
    pub operands: String,
    /// The address in its last operand, as in a branch.
    pub target: Option<u64>,
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction; calls return.
    On,
    /// To the next instruction or to the target.
    Fork,
    /// To the target.
    Jump,
    /// To an address that the listing does not have.
    Away,
}

impl Instruction {
    /// Where control goes from here.
    pub fn flow(&self) -> Flow {
        match self.mnemonic.as_str() {
            "b" => Flow::Jump,
            "cbz" | "cbnz" | "tbz" | "tbnz" => Flow::Fork,
            "br" | "ret" | "eret" | "brk" | "udf" => Flow::Away,
            other if other.starts_with("b.") => Flow::Fork,
            _ => Flow::On,
        }
    }

    /// The number of byte products that the instruction computes.
    pub fn products(&self) -> u64 {
        let is = |suffix| self.operands.split(',').next().is_some_and(|to| to.ends_with(suffix));
        match self.mnemonic.as_str() {
            "smull" | "smull2" | "smlal" | "smlal2" | "umull" | "umull2" | "umlal" | "umlal2"
                if is(".8h") =>
            {
                8
            }
            // Widened bytes, or lanes of 4-bit values.
            "mul" | "mla" if is(".8h") => 8,
            "sdot" | "udot" | "usdot" if is(".2s") => 8,
            "sdot" | "udot" | "usdot" => 16,
            "smmla" | "ummla" | "usmmla" => 32,
            _ => 0,
        }
    }

    /// The instruction as assembly, with `.` in place of an address.
    pub fn assembly(&self) -> String {
        let Instruction { mnemonic, operands, target, .. } = self;
        if target.is_none() {
            return format!("{mnemonic} {operands}");
        }
        match operands.rsplit_once(", ") {
            Some((others, _)) => format!("{mnemonic} {others}, ."),
            None => format!("{mnemonic} ."),
        }
    }
}

/// Parses a listing into its functions.
pub fn parse(listing: &str) -> Vec<Function> {
    let mut functions = vec![];
    for line in listing.lines() {
        if line.ends_with(">:") {
            functions.push(Function::default());
        } else if let (Some(instruction), Some(function)) =
            (instruction(line), functions.last_mut())
        {
            function.instructions.push(instruction);
        }
    }
    functions
}

/// Parses a line: `7c500: b.le 0x7c8d0 <name+0x60780>`.
///
/// A tab follows the colon and the mnemonic.
fn instruction(line: &str) -> Option<Instruction> {
    let (address, rest) = line.split_once(':')?;
    let address = u64::from_str_radix(address.trim(), 16).ok()?;
    let mut words = rest.trim().splitn(2, '\t');
    let mnemonic = words.next()?.to_owned();
    let operands = words.next().unwrap_or_default();
    // An assembler does not understand the comments and the symbols of the listing.
    let end = operands.find(" <").or(operands.find("//")).unwrap_or(operands.len());
    let operands = operands[..end].trim().to_owned();
    let last = operands.rsplit(", ").next().unwrap_or_default();
    let target = last.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Some(Instruction { address, mnemonic, operands, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let functions = parse(
            "\nDisassembly of section .text:\n\n0000000000000040 <first>:\n      \
             40:      \tsmlal2\tv0.8h, v1.16b, v2.16b\n      \
             44:      \tldrb\tw8, [x0, #0x10]        // a comment\n      \
             48:      \tb.ne\t0x40 <first>\n      \
             4c:      \ttbz\tw8, #3, 0x40 <first+0x0>\n\
             0000000000000050 <second>:\n      50:      \tret\n",
        );
        assert_eq!(functions.len(), 2);
        let [product, load, branch, bit] = &functions[0].instructions[..] else { panic!() };
        assert_eq!((product.address, product.products(), product.flow()), (0x40, 8, Flow::On));
        assert_eq!((load.operands.as_str(), load.target), ("w8, [x0, #0x10]", None));
        assert_eq!((branch.target, branch.flow()), (Some(0x40), Flow::Fork));
        assert_eq!(branch.assembly(), "b.ne .");
        assert_eq!(bit.assembly(), "tbz w8, #3, .");
        assert_eq!(product.assembly(), "smlal2 v0.8h, v1.16b, v2.16b");
        assert_eq!(functions[1].instructions[0].flow(), Flow::Away);
    }

    #[test]
    fn products_of_bytes_are_counted() {
        let products = |line: &str| instruction(&format!(" 10: \t{line}")).unwrap().products();
        for (line, n) in [
            ("smull\tv0.8h, v1.8b, v2.8b", 8),
            ("smlal\tv0.4s, v1.4h, v2.4h", 0),
            ("smull\tx0, w1, w2", 0),
            ("mla\tv0.8h, v1.8h, v2.8h", 8),
            ("mla\tv0.4s, v1.4s, v2.4s", 0),
            ("sdot\tv0.4s, v1.16b, v2.4b[3]", 16),
            ("sdot\tv0.2s, v1.8b, v2.8b", 8),
            ("smmla\tv0.4s, v1.16b, v2.16b", 32),
            ("add\tv0.8h, v1.8h, v2.8h", 0),
        ] {
            assert_eq!(products(line), n, "{line}");
        }
    }
}
