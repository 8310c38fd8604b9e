"""Publishes to `test_exchange` with confirms: publish.py KEY COUNT [--every-type]

The bodies are {"number":1}, {"number":2}, ...; with --every-type the messages have all properties, and a
header of every type that aio-pika can send.
"""

import asyncio
import os
import sys
from datetime import datetime, timezone
from decimal import Decimal
from urllib.parse import urlsplit

import aio_pika

URL = os.environ["AMQP_URL"]
NOON = datetime(2024, 2, 29, 12, 0, 0, tzinfo=timezone.utc)

EVERY_TYPE = {
    "headers": {
        "bool": True,
        "i8": -5,
        "i16": -300,
        "u16": 60000,
        "i32": -70000,
        "u32": 4000000000,
        "i64": -5000000000000,
        "float": 1.5,
        "decimal": Decimal("3.14"),
        "text": "grüße",
        "bytes": bytearray(b"\x00\xff"),
        "time": NOON,
        "list": [1, "two", [], None],
        "table": {"inner": {"deep": False}, "empty": {}},
        "none": None,
    },
    "content_type": "application/json",
    "content_encoding": "identity",
    "delivery_mode": aio_pika.DeliveryMode.PERSISTENT,
    "priority": 7,
    "correlation_id": "c-1",
    "reply_to": "answers",
    "expiration": 3600,
    "message_id": "m-1",
    "timestamp": NOON,
    "type": "greeting",
    "user_id": urlsplit(URL).username or "guest",
    "app_id": "aio-pika",
}


async def main(key, count, *options):
    properties = EVERY_TYPE if "--every-type" in options else {}
    connection = await aio_pika.connect(URL)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("test_exchange", aio_pika.ExchangeType.TOPIC, durable=True)
        for number in range(1, int(count) + 1):
            body = b'{"number":%d}' % number
            await exchange.publish(aio_pika.Message(body, **properties), key)


asyncio.run(main(*sys.argv[1:]))
