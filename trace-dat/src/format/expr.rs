//! Arguments of a print fmt as a tree.

/// Operators of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinOp {
    Mul,
    Div,
    Mod,
    Add,
    Sub,
    Shl,
    Shr,
    Lt,
    Gt,
    Le,
    Ge,
    Eq,
    Ne,
    And,
    Xor,
    Or,
    LogAnd,
    LogOr,
}

impl BinOp {
    /// The result in 64 bits without sign, as libtraceevent counts; a zero divisor gives 0.
    #[inline]
    pub(crate) fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            BinOp::Mul => a.wrapping_mul(b),
            BinOp::Div => a.checked_div(b).unwrap_or(0),
            BinOp::Mod => a.checked_rem(b).unwrap_or(0),
            BinOp::Add => a.wrapping_add(b),
            BinOp::Sub => a.wrapping_sub(b),
            BinOp::Shl => a.wrapping_shl(b as u32),
            BinOp::Shr => a.wrapping_shr(b as u32),
            BinOp::Lt => u64::from(a < b),
            BinOp::Gt => u64::from(a > b),
            BinOp::Le => u64::from(a <= b),
            BinOp::Ge => u64::from(a >= b),
            BinOp::Eq => u64::from(a == b),
            BinOp::Ne => u64::from(a != b),
            BinOp::And => a & b,
            BinOp::Xor => a ^ b,
            BinOp::Or => a | b,
            BinOp::LogAnd => u64::from(a != 0 && b != 0),
            BinOp::LogOr => u64::from(a != 0 || b != 0),
        }
    }

    /// The result in 64 bits with sign, as constants of tables are counted.
    pub(crate) fn apply_signed(self, a: u64, b: u64) -> u64 {
        let (x, y) = (a as i64, b as i64);
        match self {
            BinOp::Shr => x.wrapping_shr(b as u32) as u64,
            BinOp::Lt => u64::from(x < y),
            BinOp::Gt => u64::from(x > y),
            BinOp::Le => u64::from(x <= y),
            BinOp::Ge => u64::from(x >= y),
            _ => self.apply(a, b),
        }
    }

    pub(crate) fn of(text: &str) -> Option<BinOp> {
        Some(match text {
            "*" => BinOp::Mul,
            "/" => BinOp::Div,
            "%" => BinOp::Mod,
            "+" => BinOp::Add,
            "-" => BinOp::Sub,
            "<<" => BinOp::Shl,
            ">>" => BinOp::Shr,
            "<" => BinOp::Lt,
            ">" => BinOp::Gt,
            "<=" => BinOp::Le,
            ">=" => BinOp::Ge,
            "==" => BinOp::Eq,
            "!=" => BinOp::Ne,
            "&" => BinOp::And,
            "^" => BinOp::Xor,
            "|" => BinOp::Or,
            "&&" => BinOp::LogAnd,
            "||" => BinOp::LogOr,
            _ => return None,
        })
    }

    /// Priority, a lower number binds tighter.
    pub(crate) fn priority(self) -> u8 {
        match self {
            BinOp::Mul | BinOp::Div | BinOp::Mod => 6,
            BinOp::Add | BinOp::Sub => 7,
            BinOp::Shl | BinOp::Shr => 8,
            BinOp::Lt | BinOp::Gt | BinOp::Le | BinOp::Ge => 9,
            BinOp::Eq | BinOp::Ne => 10,
            BinOp::And => 11,
            BinOp::Xor => 12,
            BinOp::Or => 13,
            BinOp::LogAnd => 14,
            BinOp::LogOr => 15,
        }
    }
}

/// Priority of `?:`.
pub(crate) const COND_PRIORITY: u8 = 16;

/// Operators of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnOp {
    Not,
    Inv,
    Neg,
    Plus,
}

impl UnOp {
    pub(crate) fn of(text: &str) -> Option<UnOp> {
        Some(match text {
            "!" => UnOp::Not,
            "~" => UnOp::Inv,
            "-" => UnOp::Neg,
            "+" => UnOp::Plus,
            _ => return None,
        })
    }

    #[inline]
    pub(crate) fn apply(self, v: u64) -> u64 {
        match self {
            UnOp::Not => u64::from(v == 0),
            UnOp::Inv => !v,
            UnOp::Neg => v.wrapping_neg(),
            UnOp::Plus => v,
        }
    }

    pub(crate) fn priority(self) -> u8 {
        match self {
            UnOp::Not | UnOp::Inv => 4,
            UnOp::Neg | UnOp::Plus => 7,
        }
    }
}

/// A field by its place in the event: the own fields first, then the common ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldId(pub(crate) u16);

/// An entry of `__print_flags` or `__print_symbolic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) value: u64,
    pub(crate) name: String,
}

/// An argument or a part of one.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    /// Nothing: the missing left side of an operator.
    Null,
    /// A word or a number, as written.
    Atom(String),
    /// A string, escapes as written.
    Text(String),
    /// `REC->field`; `None`: the event has no such field.
    Field(Option<FieldId>),
    /// `expr[expr]`.
    Index(Box<Expr>, Box<Expr>),
    Unary(UnOp, Box<Expr>),
    Binary(BinOp, Box<Expr>, Box<Expr>),
    Cond(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `(type)expr`, type words separated by single blanks.
    Cast(String, Box<Expr>),
    Flags {
        value: Box<Expr>,
        delim: String,
        pairs: Vec<Pair>,
    },
    Symbolic {
        value: Box<Expr>,
        pairs: Vec<Pair>,
    },
    /// `__print_hex`, `__print_hex_str` (without blanks).
    Hex {
        buf: Box<Expr>,
        len: Box<Expr>,
        blanks: bool,
    },
    /// `__print_array`.
    Array {
        buf: Box<Expr>,
        count: Box<Expr>,
        size: Box<Expr>,
    },
    /// `__print_dynamic_array(field, size)`.
    DynPrint {
        field: FieldId,
        size: Box<Expr>,
    },
    /// `__get_str`, `__get_rel_str`.
    Str(Option<FieldId>),
    /// `__get_bitmask`, `__get_rel_bitmask`.
    Bitmask(Option<FieldId>),
    /// `__get_cpumask`, `__get_rel_cpumask`.
    Cpumask(Option<FieldId>),
    /// `__get_stacktrace`.
    Stack(Option<FieldId>),
    /// `__get_dynamic_array`, `__get_rel_dynamic_array`, `__get_sockaddr`.
    DynArray(FieldId),
    /// `__get_dynamic_array_len`.
    DynLen(FieldId),
    /// A helper function.
    Call {
        helper: &'static crate::print::Helper,
        args: Vec<Expr>,
    },
}

impl Expr {
    /// The number by which libtraceevent names the kind of an argument in `ARG TYPE NOT FIELD BUT n`.
    pub(crate) fn kind_number(&self) -> u32 {
        match self {
            Expr::Null => 0,
            Expr::Atom(_) | Expr::Text(_) => 1,
            Expr::Field(_) => 2,
            Expr::Flags { .. } => 3,
            Expr::Symbolic { .. } => 4,
            Expr::Hex { blanks: true, .. } => 5,
            Expr::Array { .. } => 6,
            Expr::Cast(..) => 7,
            Expr::Str(_) => 8,
            Expr::DynArray(_) => 10,
            Expr::Index(..) | Expr::Unary(..) | Expr::Binary(..) | Expr::Cond(..) => 11,
            Expr::Call { .. } => 12,
            Expr::Bitmask(_) => 13,
            Expr::DynLen(_) => 14,
            Expr::Hex { blanks: false, .. } => 15,
            Expr::Cpumask(_) => 16,
            Expr::DynPrint { .. } => 6,
            Expr::Stack(_) => 17,
        }
    }
}
