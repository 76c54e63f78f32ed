// What can be changed in a Solidity file, one thing at a time: classic operators, on the compiler's own syntax tree.
const RELATIONAL = { "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<"], ">=": [">", "<"], "==": ["!="], "!=": ["=="] };
const ARITHMETIC = {
  "+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["*"], "<<": [">>"], ">>": ["<<"],
  "&": ["|"], "|": ["&"], "^": ["&"], "&&": ["||"], "||": ["&&"],
};
const ASSIGNMENT = { "+=": ["-=", "="], "-=": ["+=", "="], "|=": ["&="], "&=": ["|="] };
const YUL_CALLS = { add: "sub", sub: "add", mul: "add", div: "mul", shl: "shr", shr: "shl", and: "or", or: "and", lt: "gt", gt: "lt" };
const YUL_SWAPPED = new Set(["sub", "div", "shl", "shr", "lt", "gt"]);
const UNORDERED = ["-", "/", "%", "<<", ">>"];
const PARTIES = { payer: "provider", provider: "signer", signer: "payer" };
const DELETED = new Set(["ExpressionStatement", "EmitStatement", "RevertStatement", "Return", "Continue", "Break", "YulExpressionStatement", "YulAssignment"]);

/// All mutants of one source: { file, function, operator, before, after, line, start, end, replacement, id }.
/// Offsets are in bytes of the source.
function mutantsOf(file, source, ast) {
  const bytes = Buffer.from(source);
  const range = (node) => {
    const [start, length] = node.src.split(":").map(Number);
    return [start, start + length];
  };
  const text = (node) => bytes.subarray(...range(node)).toString();
  const constants = constantsOf(ast);
  const found = [];
  const seen = new Map();
  let scope = { name: "", params: [] };

  function add(operator, [start, end], replacement, context) {
    const before = flat(bytes.subarray(...(context ?? [start, end])).toString());
    const prefix = context ? bytes.subarray(context[0], start).toString() : "";
    const suffix = context ? bytes.subarray(end, context[1]).toString() : "";
    const after = flat(prefix + replacement + suffix);
    if (before === after) return;
    const key = `${file}:${scope.name}:${operator}: ${before} => ${after || "(nothing)"}`;
    seen.set(key, (seen.get(key) ?? 0) + 1);
    const id = seen.get(key) === 1 ? key : `${key} #${seen.get(key)}`;
    const line = bytes.subarray(0, start).toString().split("\n").length;
    found.push({ id, file, function: scope.name, operator, before, after, line, start, end, replacement });
  }
  const swap = (operator, a, b, whole) => {
    const between = bytes.subarray(range(a)[1], range(b)[0]).toString();
    add(operator, [range(a)[0], range(b)[1]], text(b) + between + text(a), range(whole));
  };
  function swapSameTyped(args, whole) {
    for (let i = 0; i + 1 < args.length; i++) {
      const [a, b] = [args[i], args[i + 1]];
      if (a && b && a.typeDescriptions?.typeString === b.typeDescriptions?.typeString) swap("swap arguments", a, b, whole);
    }
  }

  const rules = {
    BinaryOperation(node) {
      const gap = [range(node.leftExpression)[1], range(node.rightExpression)[0]];
      for (const operator of RELATIONAL[node.operator] ?? []) add("relational", gap, ` ${operator} `, range(node));
      for (const operator of ARITHMETIC[node.operator] ?? []) add("arithmetic or logic", gap, ` ${operator} `, range(node));
      if (UNORDERED.includes(node.operator)) swap("swap operands", node.leftExpression, node.rightExpression, node);
      if (["&&", "||"].includes(node.operator)) {
        add("drop condition", range(node), text(node.leftExpression));
        add("drop condition", range(node), text(node.rightExpression));
      }
    },
    UnaryOperation(node) {
      if (["!", "~", "-"].includes(node.operator)) add("drop negation", range(node), text(node.subExpression));
      const other = { "++": "--", "--": "++" }[node.operator];
      if (other) add("increment", range(node), node.prefix ? other + text(node.subExpression) : text(node.subExpression) + other);
    },
    Assignment(node) {
      const gap = [range(node.leftHandSide)[1], range(node.rightHandSide)[0]];
      for (const operator of ASSIGNMENT[node.operator] ?? []) add("assignment", gap, ` ${operator} `, range(node));
    },
    IfStatement(node) {
      for (const condition of ["true", "false"]) add("condition", range(node.condition), condition);
    },
    Conditional(node) {
      add("condition", range(node), `(${text(node.trueExpression)})`);
      add("condition", range(node), `(${text(node.falseExpression)})`);
    },
    Literal(node) {
      if (node.kind === "bool") return add("constant", range(node), node.value === "true" ? "false" : "true");
      if (node.kind === "string") return add("constant", range(node), text(node).slice(0, -1) + "!" + text(node).slice(-1));
      number(node);
    },
    YulLiteral: (node) => node.kind === "number" && number(node),
    ModifierInvocation(node) {
      if (node.kind === "modifierInvocation") add("drop modifier", range(node), "");
    },
    MemberAccess(node) {
      if (text(node) === "msg.sender") {
        add("other party", range(node), "tx.origin");
        if (scope.params.includes("params")) for (const party of ["payer", "provider"]) add("other party", range(node), `params.${party}`);
      } else if (node.expression.name === "params" && PARTIES[node.memberName]) {
        add("other party", range(node), `params.${PARTIES[node.memberName]}`);
        add("other party", range(node), "msg.sender");
      }
    },
    Identifier(node) {
      const others = constants.get(node.referencedDeclaration);
      if (others) add("other constant", range(node), others);
    },
    FunctionCall(node) {
      if (node.kind === "functionCall") swapSameTyped(node.arguments, node);
    },
    TupleExpression: (node) => swapSameTyped(node.components, node),
    YulFunctionCall(node) {
      const name = node.functionName.name;
      if (YUL_CALLS[name]) add("assembly call", range(node.functionName), YUL_CALLS[name], range(node));
      if (YUL_SWAPPED.has(name)) swap("swap operands", node.arguments[0], node.arguments[1], node);
      if (name === "iszero") add("drop negation", range(node), text(node.arguments[0]));
    },
  };
  function number(node) {
    const [digits, ...unit] = text(node).split(" ");
    if (digits.includes(".") || /[0-9]e[0-9]/i.test(digits.replace(/^0x.*/, ""))) return;
    const value = BigInt(digits.replaceAll("_", ""));
    const spell = (n) => [n, ...unit].join(" ");
    add("constant", range(node), spell(value + 1n), range(node));
    if (value > 0n) add("constant", range(node), spell(value - 1n), range(node));
  }
  function visit(node) {
    if (Array.isArray(node)) return node.forEach(visit);
    if (node === null || typeof node !== "object" || !node.nodeType) return;
    if (["ImportDirective", "PragmaDirective", "StructuredDocumentation", "OverrideSpecifier"].includes(node.nodeType)) return;
    const outer = scope;
    if (node.nodeType === "FunctionDefinition") {
      scope = { name: node.name || node.kind, params: node.parameters.parameters.map((p) => p.name) };
    }
    rules[node.nodeType]?.(node);
    // The end of a statement is behind its semicolon, which assembly does not have.
    if (DELETED.has(node.nodeType)) {
      const [start, end] = range(node);
      const semicolon = node.nodeType.startsWith("Yul") || bytes[end - 1] === 59 ? 0 : 1;
      add("delete statement", [start, end + semicolon], node.nodeType.startsWith("Yul") ? "" : "{}");
    }
    for (const child of Object.values(node)) visit(child);
    scope = outer;
  }
  visit(ast.nodes);
  return found;
}

/// For each constant or immutable of the file, by its id: the next one of the same type.
function constantsOf(ast) {
  const byType = new Map();
  for (const contract of ast.nodes.filter((node) => node.nodeType === "ContractDefinition")) {
    for (const node of contract.nodes.filter((n) => n.nodeType === "VariableDeclaration" && n.mutability !== "mutable")) {
      const key = `${node.typeDescriptions.typeString}`;
      byType.set(key, [...(byType.get(key) ?? []), node]);
    }
  }
  const next = new Map();
  for (const nodes of byType.values()) {
    if (nodes.length > 1) nodes.forEach((node, i) => next.set(node.id, nodes[(i + 1) % nodes.length].name));
  }
  return next;
}

const flat = (text) => text.replace(/\s+/g, " ").trim();

module.exports = { mutantsOf };
