"""aio-pika's RPC and Master patterns on its robust connection: patterns.py METHOD QUEUE COUNT

First a line `ready`. Then for each number to COUNT what came of it: the answer of an RPC, and the number as a worker
got it as a task. Meanwhile somebody may cut the connection.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.patterns import RPC, Master

# cuts are what this is about
logging.disable(logging.CRITICAL)


async def double(*, number):
    return 2 * number


async def attempt(action):
    """Repeats what a cut has ended."""
    while True:
        try:
            return await asyncio.wait_for(action(), 2)
        except Exception:
            await asyncio.sleep(0.05)


async def main(method, queue, count):
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"], reconnect_interval=0.1)
    async with connection:
        rpc = await RPC.create(await connection.channel())
        await rpc.register(method, double)

        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        master = Master(channel)
        done = asyncio.Queue()

        async def work(*, number):
            await done.put(number)

        await master.create_worker(queue, work)
        print("ready", flush=True)
        for number in range(1, int(count) + 1):
            answer = await attempt(lambda: rpc.call(method, {"number": number}))
            await attempt(lambda: master.create_task(queue, {"number": number}))
            # a task whose confirm or ack was lost comes twice
            while await asyncio.wait_for(done.get(), 10) != number:
                pass
            print(answer, number, flush=True)


asyncio.run(main(*sys.argv[1:]))
