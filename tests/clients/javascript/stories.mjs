// Stories of the official `openai` JavaScript client against a running gateway.
//
// Reads OPENAI_BASE_URL and OPENAI_API_KEY, as the client itself does, RIALTO_CHAT_MODEL, the model to talk to, and
// RIALTO_EMBEDDING_MODEL, the model that makes vectors. Each story is a function; a failed assertion names the story and
// the others still run. The last line counts them.

import { stories as basics } from "./basics.mjs";
import { stories as schemas } from "./schemas.mjs";
import { stories as tools } from "./tools.mjs";
import { stories as vectors } from "./vectors.mjs";

const stories = { ...basics, ...tools, ...schemas, ...vectors };

let failed = 0;
for (const [name, story] of Object.entries(stories)) {
  try {
    await story();
    console.log(`ok      javascript: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  javascript: ${name}\n${error.stack}`);
  }
}
console.log(`javascript: ${Object.keys(stories).length - failed} passed, ${failed} failed`);
// A stream that was aborted may keep its connection open; the stories are over all the same.
process.exit(failed ? 1 : 0);
