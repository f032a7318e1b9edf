"""Ends what it finds on the event loop, in each way that its first text or its body names; echoes otherwise."""

import asyncio
import os
import sys
import threading
import time
from asyncio import all_tasks
from concurrent.futures import ThreadPoolExecutor


def others():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def cancel_all():
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(60)


async def cancel_all_imported_by_name():
    for task in all_tasks(asyncio.get_running_loop()):
        task.cancel()
    await asyncio.sleep(60)


async def cancel_as_asyncio_run_does():
    loop = asyncio.get_running_loop()
    for task in asyncio.tasks.all_tasks(loop):
        task.cancel()
    await asyncio.gather(*others(), return_exceptions=True)


async def cancel_others_and_wait():
    own = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    found = others()
    for task in found:
        task.cancel()
    await asyncio.gather(*found, return_exceptions=True)
    assert own.cancelled()
    assert len(found) == 1


async def cancel_from_a_thread():
    loop = asyncio.get_running_loop()

    def cancel():
        for task in asyncio.all_tasks(loop):
            loop.call_soon_threadsafe(task.cancel)

    thread = threading.Thread(target=cancel)
    thread.start()
    thread.join()
    await asyncio.to_thread(cancel)
    await asyncio.sleep(60)


async def cancel_own_loop_in_a_thread():
    seen = []

    async def main():
        left = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        seen.extend(others())
        return left

    thread = threading.Thread(target=lambda: seen.append(asyncio.run(main())))
    thread.start()
    thread.join(5)
    assert seen[0] is seen[1]
    assert seen[1].cancelled()


async def shut_executor():
    await asyncio.get_running_loop().shutdown_default_executor()
    await asyncio.to_thread(time.sleep, 0)


async def shut_executor_inside():
    await asyncio.to_thread(time.sleep, 0)
    executor = getattr(asyncio.get_running_loop(), "_default_executor", None)  # uvloop shows none
    if executor is not None:
        executor.shutdown(wait=False)
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def shut_own_default_executor():
    with ThreadPoolExecutor(2) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        await asyncio.to_thread(time.sleep, 0)
    await asyncio.to_thread(time.sleep, 0)


async def shut_generators():
    await asyncio.get_running_loop().shutdown_asyncgens()


async def stop_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.1)


async def stop_loop_from_a_thread():
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, loop.stop)
    await asyncio.sleep(0.1)


async def close_loop():
    asyncio.get_running_loop().close()


async def run_until_complete():
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))


async def unset_loop():
    asyncio.set_event_loop(None)


async def replace_handler():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: loop.stop())
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.1)


async def exit_in_task():
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.1)


DEEDS = {name: value for name, value in globals().items() if asyncio.iscoroutinefunction(value)}
kept = None


async def setup():
    global kept
    kept = asyncio.create_task(asyncio.sleep(600))
    if os.environ.get("IN_SETUP"):
        await DEEDS[os.environ["IN_SETUP"]]()


async def teardown():
    if os.environ.get("IN_TEARDOWN"):
        await cancel_as_asyncio_run_does()
        await asyncio.sleep(0)
        print("kept was cancelled:", kept.cancelled(), flush=True)


async def bot(args):
    websocket = getattr(args, "websocket", None)
    if websocket is None:
        await DEEDS[args.body["do"]]()
        return
    async for message in websocket.iter_text():
        if message in DEEDS:
            await DEEDS[message]()
        else:
            await websocket.send_text(message)
