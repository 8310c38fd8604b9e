"""Prints what arrives on `test_exchange` with a routing key: consume.py KEY COUNT [--describe]

First a line `ready`. Then for each of COUNT messages its body; with --describe a line for each property and
header instead: name, Python type, value.
"""

import asyncio
import os
import sys
from datetime import datetime

import aio_pika

PROPERTIES = [
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
]  # fmt: skip


def describe(name, value):
    if isinstance(value, dict):
        if not value:
            print(f"{name} dict")
        for key, inner in value.items():
            describe(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            describe(f"{name}.{index}", inner)
    else:
        if isinstance(value, datetime):
            text = str(int(value.timestamp()))
        elif isinstance(value, (bytes, bytearray)):
            text = value.hex()
        else:
            text = str(value)
        print(f"{name} {type(value).__name__} {text}")


async def main(key, count, *options):
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        exchange = await channel.declare_exchange("test_exchange", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, key)
        left = int(count)
        async with queue.iterator() as messages:
            print("ready", flush=True)
            async for message in messages:
                async with message.process():
                    if "--describe" in options:
                        for name in PROPERTIES:
                            describe(name, getattr(message, name))
                        describe("headers", message.headers)
                    else:
                        print(message.body.decode(), flush=True)
                left -= 1
                if left == 0:
                    break


asyncio.run(main(*sys.argv[1:]))
