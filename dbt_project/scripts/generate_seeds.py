#!/usr/bin/env python3
"""Write the seeds of the shop: two years of made-up sales.

Every run writes the same bytes. The data is like that of a real shop: seasons, repeat buyers, cancelled, open and
returned orders, late payments, and some values that staging has to clean.
"""

import csv
import math
import random
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SEEDS = Path(__file__).resolve().parent.parent / "seeds" / "raw"
START = datetime(2024, 7, 1)
END = datetime(2026, 6, 30, 23, 59, 59)
CUSTOMERS = 300
ORDERS = 1000

rng = random.Random(20240701)

FIRST_NAMES = [
    "Aisha", "Ana", "Anders", "Arjun", "Beatriz", "Ben", "Carla", "Chloé", "Daniel", "Diego", "Elena", "Emma",
    "Farah", "Felix", "Grace", "Hana", "Hugo", "Ines", "Ivan", "Jack", "Jana", "José", "Julia", "Kai", "Laura",
    "Leo", "Lina", "Lucas", "Maria", "Mateo", "Mia", "Nina", "Noah", "Olivia", "Omar", "Priya", "Rosa", "Sam",
    "Sofia", "Tom", "Yuki", "Zoë",
]  # fmt: skip
LAST_NAMES = [
    "Andersen", "Bauer", "Becker", "Brown", "Chen", "Costa", "Davis", "Dubois", "Fernández", "García", "Hansen",
    "Hoffmann", "Ivanova", "Jensen", "Jones", "Kim", "Kumar", "Larsson", "Lopez", "Martin", "Miller", "Moreau",
    "Müller", "Nguyen", "Novak", "O'Brien", "Patel", "Rossi", "Santos", "Sato", "Schmidt", "Silva", "Singh",
    "Smith", "Taylor", "Wagner", "Walker", "Weber", "Williams", "Wilson", "Wright", "Yılmaz",
]  # fmt: skip
COUNTRIES = {"US": 38, "DE": 16, "GB": 14, "FR": 10, "NL": 6, "ES": 6, "IN": 5, "CA": 5}

# SKU prefix, category, products with their price in cents and their cost as a percentage of it.
CATALOGUE = [
    ("COF", "coffee", [
        ("Pour-over Kettle", 7900, 52), ("Hand Grinder", 9900, 55), ("Espresso Machine", 48900, 66),
        ("French Press", 3900, 45), ("Ceramic Dripper", 2400, 38), ("House Blend 1 kg", 2900, 58),
        ("Single Origin 250 g", 1490, 56), ("Paper Filters x100", 650, 40),
    ]),
    ("KIT", "kitchen", [
        ("Chef's Knife", 11900, 48), ("Cast Iron Pan", 6900, 54), ("Cutting Board", 4500, 42),
        ("Stock Pot 8 l", 8900, 57), ("Mixing Bowls x3", 3400, 44), ("Kitchen Scale", 2900, 50),
        ("Stand Mixer", 39900, 72), ("Linen Apron", 3900, 41),
    ]),
    ("DSK", "desk", [
        ("Standing Desk", 62900, 68), ("Monitor Arm", 12900, 55), ("Desk Lamp", 7900, 49),
        ("Wool Desk Mat", 4900, 43), ("Notebook A5", 1800, 35), ("Fountain Pen", 5900, 47),
        ("Cable Tray", 2900, 46), ("Laptop Stand", 5400, 51),
    ]),
    ("OUT", "outdoor", [
        ("Two-person Tent", 28900, 64), ("Sleeping Bag", 15900, 60), ("Trail Backpack 40 l", 13900, 55),
        ("Camp Stove", 6900, 53), ("Headlamp", 4400, 48), ("Insulated Bottle", 3200, 42),
        ("Hammock", 7400, 50), ("Picnic Blanket", 4200, 45),
    ]),
    ("HOM", "home", [
        ("Wool Throw", 8900, 50), ("Linen Bedding Set", 18900, 58), ("Table Lamp", 9900, 52),
        ("Scented Candle", 2600, 33), ("Wall Clock", 5400, 47), ("Bath Towels x4", 6900, 55),
        ("Plant Pot", 2200, 39), ("Floor Rug", 24900, 72),
    ]),
]
CLEARANCE = {"Stand Mixer", "Floor Rug"}  # sometimes sold with 30% off, which is just below cost

MONTH_WEIGHT = {1: 0.8, 2: 0.8, 3: 0.9, 4: 1.0, 5: 1.0, 6: 0.9, 7: 0.8, 8: 0.8, 9: 1.0, 10: 1.1, 11: 1.9, 12: 1.8}
WEEKDAY_WEIGHT = [1.1, 1.0, 1.0, 1.0, 0.9, 1.2, 1.3]
RETURN_REASONS = {"changed_mind": 40, "defective": 25, "wrong_item": 15, "arrived_late": 20}


def pick(weights: dict[str, int]) -> str:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def chance(probability: float) -> bool:
    return rng.random() < probability


def after(moment: datetime, shortest: timedelta, longest: timedelta) -> datetime:
    """A random time between ``shortest`` and ``longest`` after ``moment``, to the second."""
    return moment + timedelta(seconds=rng.randint(int(shortest.total_seconds()), int(longest.total_seconds())))


def days(count: int) -> timedelta:
    return timedelta(days=count)


def utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def untidy(text: str, probability: float, *variants: Callable[[str], str]) -> str:
    """Sometimes the value as a person or an old system would write it."""
    return rng.choice(variants)(text) if chance(probability) else text


def padded(text: str) -> str:
    return f" {text} "


def make_customers() -> list[Row]:
    customers: list[Row] = []
    taken: set[str] = set()
    for number in range(1, CUSTOMERS + 1):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        letters = unicodedata.normalize("NFKD", f"{first}.{last}".replace("ı", "i").replace("'", "").lower())
        local_part = letters.encode("ascii", "ignore").decode()
        if local_part in taken:
            local_part += str(number)
        taken.add(local_part)
        # The first 60 signed up before the first order in the data.
        signed_up_at = after(START - days(120), days(0), days(119)) if number <= 60 else after(START, days(0), days(700))
        customers.append({
            "id": number,
            "first_name": untidy(first, 0.03, padded),
            "last_name": untidy(last, 0.03, padded),
            "email": untidy(f"{local_part}@example.com", 0.10, padded, str.upper, str.title),
            "country": untidy(pick(COUNTRIES), 0.08, padded, str.lower, lambda _: "", lambda _: "  "),
            "signed_up_at": signed_up_at,
            # A few customers buy very often, some sign up and never buy.
            "keenness": 0 if chance(0.05) else rng.lognormvariate(0, 0.9),
        })
    return customers


def make_products() -> list[Row]:
    products: list[Row] = []
    for prefix, category, items in CATALOGUE:
        for position, (name, price, cost_percent) in enumerate(items, start=1):
            repriced = chance(0.35)
            changed_at = after(START, days(120), days(600)) if repriced else START - days(30)
            products.append({
                "id": len(products) + 1,
                "sku": f"{prefix}-{position:03d}",
                "name": untidy(name, 0.10, padded),
                "category": untidy(category, 0.15, str.upper, str.title, padded),
                "price": price,
                "old_price": price * 94 // 100 if repriced else price,
                "cost": price * cost_percent // 100,
                "updated_at": changed_at,
                "clearance": name in CLEARANCE,
                "popularity": rng.lognormvariate(0, 0.6) * (3 if price < 10000 else 1),
            })
    return products


def order_moments() -> list[datetime]:
    calendar = [START + days(n) for n in range((END - START).days + 1)]
    weights = [
        MONTH_WEIGHT[day.month] * WEEKDAY_WEIGHT[day.weekday()] * (1 + 0.6 * n / len(calendar))
        for n, day in enumerate(calendar)
    ]
    return sorted(
        day + timedelta(hours=min(23, max(0, round(rng.gauss(15, 4)))), seconds=rng.randint(0, 3599))
        for day in rng.choices(calendar, weights=weights, k=ORDERS)
    )


def choose_customer(customers: list[Row], moment: datetime) -> Row:
    known = [c for c in customers if c["signed_up_at"] < moment]
    # Interest decreases over the months after sign-up, but never reaches zero.
    weights = [c["keenness"] * (0.25 + math.exp(-(moment - c["signed_up_at"]).days / 120)) for c in known]
    return rng.choices(known, weights=weights)[0]


def make_lines(products: list[Row], moment: datetime) -> list[Row]:
    lines = []
    count = rng.choices([1, 2, 3, 4], weights=[48, 30, 15, 7])[0]
    chosen: list[Row] = []
    while len(chosen) < count:
        product = rng.choices(products, weights=[p["popularity"] for p in products])[0]
        if product not in chosen:
            chosen.append(product)
    for product in chosen:
        price = product["price"] if moment >= product["updated_at"] else product["old_price"]
        quantity = rng.choices([1, 2, 3, 4], weights=[70, 20, 7, 3])[0] if price < 20000 else 1
        percent = rng.choices([0, 5, 10, 15, 20], weights=[72, 8, 10, 6, 4])[0]
        if product["clearance"] and chance(0.15):
            percent = 30
        lines.append({
            "product_id": product["id"],
            "quantity": quantity,
            "price": price,
            "cost": product["cost"],
            "discount": quantity * price * percent // 100,
        })
    return lines


def line_total(line: Row) -> int:
    total: int = line["quantity"] * line["price"] - line["discount"]
    return total


def payment(method: str, status: str, cents: int, paid_at: datetime) -> Row:
    return {"method": method, "status": status, "cents": cents, "at": paid_at}


def make_payments(ordered_at: datetime, total: int) -> tuple[list[Row], datetime]:
    """The payments of an order that is not cancelled, and when the last one arrives."""
    method = pick({"credit_card": 60, "paypal": 20, "bank_transfer": 12, "gift_card": 8})
    payments = []
    if method == "bank_transfer":  # an invoice: paid within two weeks, or late
        paid_at = after(ordered_at, days(20), days(45)) if chance(0.15) else after(ordered_at, days(1), days(14))
        payments.append(payment(method, "succeeded", total, paid_at))
    else:
        paid_at = after(ordered_at, timedelta(seconds=20), timedelta(minutes=5))
        if method == "credit_card" and chance(0.06):
            payments.append(payment(method, "failed", total, paid_at))
            paid_at = after(paid_at, timedelta(minutes=1), timedelta(hours=6))
        if method == "gift_card" and total > 5000:  # the card pays a part, a credit card the rest
            payments.append(payment(method, "succeeded", 5000, paid_at))
            payments.append(payment("credit_card", "succeeded", total - 5000, paid_at))
        else:
            payments.append(payment(method, "succeeded", total, paid_at))
    return [p for p in payments if p["at"] <= END], paid_at


def make_orders(customers: list[Row], products: list[Row]) -> list[Row]:
    orders = []
    for number, ordered_at in enumerate(order_moments(), start=1):
        customer = choose_customer(customers, ordered_at)
        lines = make_lines(products, ordered_at)
        total = sum(map(line_total, lines))
        payments, paid_at = make_payments(ordered_at, total)
        shipped_at = after(ordered_at, timedelta(hours=6), days(3))
        completed_at = max(after(shipped_at, days(2), days(6)), paid_at)
        returns = []

        if chance(0.055):
            status, updated_at = "cancelled", after(ordered_at, timedelta(hours=1), days(2))
            # Cancelled orders were never paid, or were refunded.
            payments = [
                p | {"status": "refunded"}
                for p in payments
                if p["status"] == "succeeded" and p["at"] <= updated_at and chance(0.6)
            ]
        elif completed_at <= END:
            status, updated_at = "completed", completed_at
            sent_back = []
            if chance(0.045):
                sent_back = [(line, line["quantity"]) for line in lines]
            elif chance(0.04):
                line = rng.choice(lines)
                sent_back = [(line, rng.randint(1, line["quantity"]))]
            returned_at = after(completed_at, days(3), days(28))
            if sent_back and returned_at <= END:
                reason = pick(RETURN_REASONS)
                returns = [
                    {"line": line, "quantity": quantity, "reason": reason, "at": returned_at,
                     "cents": line_total(line) * quantity // line["quantity"]}
                    for line, quantity in sent_back
                ]
                if len(sent_back) == len(lines) and all(q == line["quantity"] for line, q in sent_back):
                    status, updated_at = "returned", returned_at
        elif shipped_at <= END:
            status, updated_at = "shipped", shipped_at
        else:
            status, updated_at = "pending", ordered_at
            payments = []

        orders.append({
            "id": number,
            "customer_id": customer["id"],
            "status": status,
            "ordered_at": ordered_at,
            "updated_at": min(updated_at, END),
            "lines": lines,
            "payments": payments,
            "returns": returns,
        })
    return orders


def write(name: str, header: list[str], rows: list[list[Any]]) -> None:
    with open(SEEDS / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    customers = make_customers()
    products = make_products()
    orders = make_orders(customers, products)

    write(
        "raw_customers",
        ["id", "first_name", "last_name", "email", "country", "signed_up_at"],
        [[c["id"], c["first_name"], c["last_name"], c["email"], c["country"], utc(c["signed_up_at"])]
         for c in customers],
    )
    write(
        "raw_products",
        ["id", "sku", "name", "category", "unit_price", "unit_cost", "updated_at"],
        [[p["id"], p["sku"], p["name"], p["category"],
          untidy(money(p["price"]), 0.2, lambda text: f"${text}", lambda text: f"{text} USD"),
          money(p["cost"]), utc(p["updated_at"])]
         for p in products],
    )

    order_rows: list[list[Any]] = []
    item_rows: list[list[Any]] = []
    payment_rows: list[list[Any]] = []
    return_rows: list[list[Any]] = []
    for order in orders:
        ordered_at = utc(order["ordered_at"])
        if order["status"] != "pending" and chance(0.01):  # the loader left an older version of the row
            order_rows.append([order["id"], order["customer_id"], "pending", ordered_at, ordered_at])
        status = "canceled" if order["status"] == "cancelled" and chance(0.2) else order["status"]
        order_rows.append([order["id"], order["customer_id"], untidy(status, 0.05, str.upper, str.title, padded),
                           ordered_at, utc(order["updated_at"])])
        for line in order["lines"]:
            line["id"] = len(item_rows) + 1
            item_rows.append([line["id"], order["id"], line["product_id"], line["quantity"],
                              money(line["price"]), money(line["cost"]), money(line["discount"])])
        for paid in order["payments"]:
            payment_rows.append([
                len(payment_rows) + 1, order["id"],
                untidy(paid["method"], 0.05, lambda text: text.replace("_", " ").title()),
                untidy(paid["status"], 0.03, str.upper, padded),
                untidy(money(paid["cents"]), 0.05, lambda text: f"${text}", padded),
                utc(paid["at"]),
            ])
        for back in order["returns"]:
            return_rows.append([len(return_rows) + 1, back["line"]["id"], back["quantity"],
                                untidy(back["reason"], 0.1, lambda text: text.replace("_", " ").capitalize()),
                                money(back["cents"]), utc(back["at"])])

    write("raw_orders", ["id", "customer_id", "status", "ordered_at", "updated_at"], order_rows)
    write("raw_order_items",
          ["id", "order_id", "product_id", "quantity", "unit_price", "unit_cost", "discount_amount"], item_rows)
    write("raw_payments", ["id", "order_id", "method", "status", "amount", "paid_at"], payment_rows)
    write("raw_returns", ["id", "order_item_id", "quantity", "reason", "refund_amount", "returned_at"], return_rows)


if __name__ == "__main__":
    main()
