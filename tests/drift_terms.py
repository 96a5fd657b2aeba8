"""Terms of a team, paraphrases of what they mean, and what others mean by the same words."""

from __future__ import annotations

TERMS = {
    "delivery": "the day on which the parcel reaches the customer's door",
    "customer": "the person who pays for the order",
    "margin": "the price minus what the goods cost us",
    "stock": "goods that lie in our own warehouse now",
    "return": "a parcel that the customer sends back to us",
    "rebate": "money given back after a purchase of many pieces",
    "route": "the order in which a driver visits addresses",
    "shift": "eight hours in which the same people work",
    "slot": "a quarter of an hour at a loading door",
    "claim": "a letter in which a customer demands money for damage",
}
SAME = {
    "delivery": "the day the parcel reaches the door of the customer",
    "customer": "a person who pays for an order",
    "margin": "price minus the cost of the goods to us",
    "stock": "the goods lying in our warehouse now",
    "return": "a parcel which the customer sends back",
    "rebate": "money that is given back after purchase of many pieces",
    "route": "the order of addresses that the driver visits",
    "shift": "the eight hours that the same people work",
    "slot": "a quarter hour at one loading door",
    "claim": "a customer's letter demanding money for a damage",
}
OTHER = {
    "delivery": "when a truck leaves the factory",
    "customer": "whoever visits the web site",
    "margin": "white space around a page",
    "stock": "shares traded at an exchange",
    "return": "profit in percent of an investment",
    "rebate": "a groove cut along the edge of wood",
    "route": "a line of a table in a network's switch",
    "shift": "a key of the keyboard for capitals",
    "slot": "an opening for coins in a machine",
    "claim": "a piece of land where gold is dug",
}
