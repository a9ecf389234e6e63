// A Node program that works with and without supervisor:
//     supervisor --enable-heartbeat node heartbeat.js
// Copy into your own program: beat(), `interval`, and the call of beat() in your loop.
'use strict';
const fs = require('fs');

// supervisor sets HEARTBEAT_TIMEOUT (seconds, 0.5 for example). Four beats in that time
// leave room for three late ones. At most an hour: setTimeout takes no more than 24 days.
const timeout = Number(process.env.HEARTBEAT_TIMEOUT);
const interval = Math.min((timeout > 0 ? timeout : 20) / 4, 3600);

// A beat is a write to the file. HEARTBEAT_FILE not set: not supervised, no beats.
function beat() {
  if (!process.env.HEARTBEAT_FILE) return;
  try {
    fs.writeFileSync(process.env.HEARTBEAT_FILE, `${Date.now() / 1000}\n`);
  } catch (e) {
    console.error(`no beat: ${e.message}`); // reported, not fatal
  }
}

async function work() {
  console.log('working'); // your work; longer than the interval? call beat() in it too
}

// beat() stands in the loop that does the work, after `await work()`: a promise that never
// settles stops the beats. A setInterval of its own would go on beating while the work
// hangs, and supervisor would see nothing.
async function loop() {
  await work();
  beat();
  setTimeout(loop, interval * 1000); // waiting for work: never longer than this at a time
}
loop();
