// Any one call of @videosdk.live/server-sdk, which is set up by its own environment variables; see ../README.md.

import { isVideoSDKError, VideoSDK } from '@videosdk.live/server-sdk';

const [call, ...pairs] = process.argv.slice(2);
const values = Object.fromEntries(
  pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
);

let result;
try {
  const names = call.split('.');
  const method = names.pop();
  const resource = names.reduce((object, name) => object[name], new VideoSDK({ maxRetries: 0 }));
  let value = await resource[method](...JSON.parse(values.arguments ?? '[]'));
  if (value?.[Symbol.asyncIterator]) {
    const all = [];
    for await (const item of value) all.push(item);
    value = { first: value.data, all, total: value.total };
  }
  result = { value: value ?? null };
} catch (error) {
  if (!isVideoSDKError(error)) throw error;
  result = { error: { name: error.name, status: error.httpStatus, code: error.code, message: error.message } };
}
console.log(JSON.stringify(result));
