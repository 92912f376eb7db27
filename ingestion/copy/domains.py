"""Top-level domains that a bare host may end in: every country's, the common generic ones, those of other scripts.

A list of our own, not the registry's (data.iana.org/TLD), which grows by the month: rare ones are missing.
"""

_COUNTRIES = """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf
cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg
gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn
kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na
nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh
si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve
vg vi vn vu wf ws ye yt za zm zw
"""
_GENERIC = """
academy agency app art asia auction baby bar bargains beauty beer best bet bid bike biz black blog blue boats boutique
business buzz cam camp car cards care casa cash casino cat center charity chat cheap christmas city claims click
clinic clothing cloud club coach codes coffee com community company computer cool coop country coupons credit cyou
dance date dating day deals delivery design dev diet digital direct directory discount doctor dog domains download
earth edu email energy events exchange expert express fail faith family fan fans farm fashion finance fish fit fitness
flights flowers food football forsale forum foundation fun fund furniture fyi gallery game games garden gay gift gifts
girl giving global gmbh gold golf gov green group guide guru hair haus health help holiday homes host hosting house
icu immo inc info ink int international investments jewelry jobs kim kitchen land lat law legal lgbt life limited link
live loan loans lol london love ltd luxury maison makeup market marketing markets mba media men menu mil mobi moda mom
money monster mov museum name net network news ngo ninja now observer one onion online org paris parts party pet photo
photography photos pics pictures pink pizza place plus poker press pro productions promo properties pub quest racing
realty recipes red rehab reise reisen rent rental rentals repair report rest restaurant review reviews rip rocks run
sale salon sbs school science services sex sexy shoes shop shopping show singles site ski skin soccer social software
solar solutions space sport store stream studio style support surf swiss systems tattoo tax taxi team tech technology
tel tennis theater tickets tienda tips tires today tokyo tools top tours town toys trade trading training travel tube
university uno vacations vegas ventures vet video villas vin vip vision vodka vote voyage wang watch watches webcam
website wedding wien wiki win wine work works world wtf xin xxx xyz yoga zip zone berlin hamburg koeln cologne bayern
saarland ruhr nrw amsterdam brussels nyc miami
"""
_OTHER_SCRIPTS = """
рф рус бел укр срб мон мкд бг қаз ею сайт онлайн орг ком дети москва ευ ελ 中国 中國 公司 网络 網絡 网址 网站 在线 中文网 商城 商店 网店 手机 移动
集团 我爱你 香港 台湾 台灣 澳門 新加坡 みんな コム ストア セール ファッション クラウド 한국 닷컴 닷넷 भारत संगठन இந்தியா ไทย ישראל קום قطر مصر السعودية امارات
ایران شبكة موقع بازار كوم
"""
DOMAINS = frozenset(f"{_COUNTRIES} {_GENERIC} {_OTHER_SCRIPTS}".split())
"""In small letters."""
