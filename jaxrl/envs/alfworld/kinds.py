"""What stands in which room, what lies where, and what can be done with it. Tables alone.

The names and which of them fit together are those of ALFRED's scenes, as far as the tables go.
"""

from typing import NamedTuple

OPENABLE = frozenset({"cabinet", "drawer", "fridge", "microwave", "safe"})
LAMP = "desklamp"
LAMP_STANDS = ("desk", "dresser", "shelf", "sidetable")
TOOLS = {"heat": "microwave", "cool": "fridge", "clean": "sinkbasin"}
STATES = {"heat": "hot", "cool": "cool", "clean": "clean"}

# the most of each kind in one room
ROOMS: dict[str, dict[str, int]] = {
    name: {kind: int(most) for kind, most in (word.split(":") for word in row.split())}
    for name, row in {
        "kitchen": "cabinet:8 drawer:6 countertop:3 fridge:1 microwave:1 sinkbasin:1 stoveburner:4 "
        "coffeemachine:1 toaster:1 garbagecan:1 diningtable:2 shelf:3",
        "bathroom": "cabinet:4 drawer:3 countertop:2 sinkbasin:2 bathtubbasin:1 toilet:1 shelf:2 "
        "garbagecan:1 towelholder:1 handtowelholder:2 toiletpaperhanger:1",
        "bedroom": "bed:1 desk:2 drawer:8 dresser:1 shelf:6 sidetable:2 safe:1 armchair:1 garbagecan:1 "
        "laundryhamper:1",
        "livingroom": "sofa:2 armchair:2 coffeetable:2 sidetable:2 diningtable:1 tvstand:1 dresser:1 shelf:4 "
        "drawer:6 cabinet:4 desk:1 safe:1 garbagecan:1",
    }.items()
}


class Kind(NamedTuple):
    """A kind of thing. rooms: where it is at home; places: the furniture that it may lie in or on; can: the
    verbs that change it.
    """

    rooms: tuple[str, ...]
    places: tuple[str, ...]
    can: tuple[str, ...]


def _kinds(table: str) -> dict[str, Kind]:
    rows = (line.split(" | ") for line in table.strip().splitlines())
    return {
        name: Kind(tuple(rooms.split()), tuple(places.split()), tuple(can.replace("-", "").split()))
        for names, rooms, places, can in rows
        for name in names.split()
    }


THINGS = _kinds(
    """
apple potato tomato | kitchen | countertop diningtable fridge garbagecan microwave sinkbasin | heat cool clean
bread | kitchen | countertop diningtable fridge garbagecan microwave toaster | heat cool
egg | kitchen | countertop diningtable fridge garbagecan microwave sinkbasin | heat cool clean
lettuce | kitchen | countertop diningtable fridge garbagecan sinkbasin | cool clean
mug | kitchen | cabinet coffeemachine countertop diningtable fridge microwave sinkbasin | heat cool clean
cup plate | kitchen | cabinet countertop diningtable fridge microwave shelf sinkbasin | heat cool clean
bowl | kitchen | cabinet countertop diningtable fridge shelf sinkbasin | cool clean
pan pot | kitchen | cabinet countertop diningtable fridge sinkbasin stoveburner | cool clean
winebottle | kitchen | cabinet countertop diningtable fridge garbagecan shelf | cool
butterknife fork knife spoon | kitchen | countertop diningtable drawer sinkbasin | clean
ladle spatula | kitchen | countertop diningtable drawer sinkbasin stoveburner | clean
kettle | kitchen | cabinet countertop diningtable shelf sinkbasin stoveburner | clean
dishsponge | kitchen | cabinet countertop drawer sinkbasin | clean
glassbottle | kitchen | cabinet countertop diningtable garbagecan shelf sinkbasin | -
peppershaker saltshaker | kitchen | cabinet countertop diningtable drawer shelf | -
soapbar | bathroom | bathtubbasin cabinet countertop drawer garbagecan shelf sinkbasin toilet | clean
cloth | bathroom | bathtubbasin cabinet countertop drawer garbagecan shelf sinkbasin toilet | clean
soapbottle spraybottle | bathroom | cabinet countertop drawer garbagecan shelf toilet | -
candle | bathroom | cabinet countertop drawer shelf toilet | -
tissuebox | bathroom livingroom | cabinet coffeetable countertop drawer dresser shelf sidetable toilet | -
toiletpaper | bathroom | cabinet countertop drawer garbagecan shelf toilet toiletpaperhanger | -
handtowel | bathroom | bathtubbasin countertop handtowelholder | -
towel | bathroom | bathtubbasin towelholder | -
alarmclock cd | bedroom | desk drawer dresser shelf sidetable | -
baseballbat basketball tennisracket | bedroom | armchair bed desk dresser | -
book | bedroom livingroom | armchair bed coffeetable desk drawer dresser shelf sidetable sofa | -
cellphone | bedroom | bed desk drawer dresser safe shelf sidetable | -
creditcard keychain watch | bedroom livingroom | coffeetable desk drawer dresser safe shelf sidetable sofa | -
laptop | bedroom livingroom | armchair bed coffeetable desk diningtable dresser sidetable sofa | -
pen pencil | bedroom livingroom | coffeetable desk drawer dresser garbagecan shelf sidetable | -
pillow | bedroom livingroom | armchair bed sofa | -
teddybear | bedroom | bed desk dresser | -
newspaper | livingroom | armchair coffeetable diningtable drawer garbagecan sidetable sofa tvstand | -
remotecontrol | livingroom | armchair coffeetable drawer dresser sidetable sofa tvstand | -
statue vase | livingroom | cabinet coffeetable dresser safe shelf sidetable tvstand | -
wateringcan | livingroom | coffeetable desk shelf sidetable tvstand | -
box | livingroom | armchair cabinet coffeetable desk diningtable dresser sidetable sofa | -
"""
)
