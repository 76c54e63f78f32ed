"""The split of a payment never takes more than the payment (invariant 5), for all totals and all rates, by z3.

With fee(n) = n * f / B and royalty(n) = (n - fee(n)) * r / (B - f), integer divisions, B = 10000, a channel that goes from
`a` to `b >= a` owes the differences. check_add_is_the_formula (Proofs.t.sol) shows that this is what the bytecode computes.
Here, for unbounded integers: when n grows by one, fee grows by 0 or 1, and either the royalty's base n - fee(n) stays, or it
grows by one and the royalty by 0 or 1. So of each unit at most one part grows, and by one; summed from a to b, no part is
negative and fee + royalty <= b - a. What is left is the provider's.
"""

import sys
from z3 import And, Int, Not, Or, Solver, unsat

BPS = 10_000


def prove(name, *facts, goal):
    solver = Solver()
    solver.set("timeout", 60_000)
    # First that the facts do not exclude each other: of nothing, everything is true.
    solver.add(*facts)
    if str(solver.check()) != "sat":
        sys.exit(f"FAIL {name}: no case at all")
    solver.add(Not(goal))
    answer = solver.check()
    if answer != unsat:
        sys.exit(f"FAIL {name}: {answer} {solver.model() if str(answer) == 'sat' else ''}")
    print(f"proved: {name}")


def quotient(q, product, divisor):
    """q is product / divisor, rounded down."""
    return And(q * divisor <= product, product < q * divisor + divisor)


f, r, n = Int("f"), Int("r"), Int("n")
x, y = Int("x"), Int("y")
rates = [0 <= f, f <= 1_000, 0 <= r, r <= 1_000, n >= 0]

product = Int("n*f")  # Any number: n + 1 only adds f to it.
prove(
    "fee(n + 1) - fee(n) is 0 or 1",
    *rates, product >= 0, quotient(x, product, BPS), quotient(y, product + f, BPS),
    goal=Or(y == x, y == x + 1),
)
product, rest = Int("k*r"), Int("rest")
prove(
    "royalty's quotient at k + 1 is the one at k, or one more",
    *rates, product >= 0, rest == BPS - f, quotient(x, product, rest), quotient(y, product + r, rest),
    goal=Or(y == x, y == x + 1),
)
prove("fee(n) <= n", *rates, n < 2**96, quotient(x, n * f, BPS), goal=And(0 <= x, x <= n))
# With those: of one unit, fee takes it (the base stays, and so does the royalty), or the base grows by one.
fee, royalty = Int("fee"), Int("royalty")
prove(
    "of one unit no part is negative, and all parts are that unit",
    Or(fee == 0, fee == 1), Or(royalty == 0, And(royalty == 1, 1 - fee == 1)),
    goal=And(fee >= 0, royalty >= 0, fee + royalty <= 1),
)
prove(
    "nothing overflows 256 bits",
    *rates, n < 2**96,
    goal=And(n * f < 2**256, n * r < 2**256, BPS - f >= 9_000),
)
