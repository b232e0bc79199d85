"""Messages to bytes and back: an envelope, then messages, decoded by a closed set of types.

JSON writes one message a line; MessagePack (the sender's choice) one array a payload. A receiver
decodes both: the first byte tells which it is.
"""

from pbus.codec.envelope import FORMAT_VERSION as FORMAT_VERSION
from pbus.codec.envelope import Count as Count
from pbus.codec.envelope import Encoding as Encoding
from pbus.codec.envelope import Envelope as Envelope
from pbus.codec.envelope import Header as Header
from pbus.codec.envelope import as_json as as_json
from pbus.codec.envelope import check_addresses as check_addresses
from pbus.codec.envelope import claimed_origin as claimed_origin
from pbus.codec.envelope import decode_header as decode_header
from pbus.codec.envelope import decode_payload as decode_payload
from pbus.codec.envelope import encode_payload as encode_payload
from pbus.codec.envelope import is_broadcast as is_broadcast
from pbus.codec.envelope import origin_of as origin_of
from pbus.codec.envelope import source_of as source_of
from pbus.codec.envelope import with_target as with_target
from pbus.codec.envelope import within_packed as within_packed
from pbus.codec.field_checks import check_key as check_key
from pbus.codec.field_checks import check_plain as check_plain
from pbus.codec.message_codec import decode_message as decode_message
from pbus.codec.message_codec import decode_opaque as decode_opaque
from pbus.codec.message_codec import encode_checked as encode_checked
from pbus.codec.message_codec import encode_message as encode_message
from pbus.codec.message_codec import encode_raw as encode_raw
from pbus.codec.message_codec import known_form as known_form
from pbus.codec.message_codec import type_of as type_of
from pbus.codec.message_codec import union_decoder as union_decoder
from pbus.codec.opaque import opaque_data as opaque_data
